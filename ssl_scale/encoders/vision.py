"""Vision transformers."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.encoders.presets import VISION, VisionPreset, choose_size
from ssl_scale.encoders.transformer import (
    Pool,
    Position,
    TransformerEncoder,
    hidden_by,
    sequence_draw,
)
from ssl_scale.nn.mlp import FeedForwardKind
from ssl_scale.nn.norm import Norm
from ssl_scale.nn.patching import PatchEmbed, patch_grid
from ssl_scale.nn.tokens import MaskFill
from ssl_scale.nn.trunk import Trunk
from ssl_scale.part import Count, Positive, Probability, Whole
from ssl_scale.types import Attend, Features, Layout, Mask, View


class VisionTransformer(TransformerEncoder):
    """A transformer on the patches of a picture.

    Paper: An Image is Worth 16x16 Words, arXiv 2010.11929, section 3.1.

    Also CLIP's, arXiv 2103.00020, section 2.4 (``stem_norm: true``, ``mlp: quick_gelu``,
    ``norm_eps: 1.0e-5``), and DINOv2's, arXiv 2304.07193 (``layer_scale: 1.0``, ``patch: 14``).

    Differs: [CLS] has no position of its own (its vector holds one); patches go through the last
    norm too, which CLIP gives to [CLS] only.

    Args:
        preset: a size from the papers; arguments that are given override it.
        width: features of a token.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: features inside the feed-forward layer, over the width.
        patch: side of a patch, pixels.
        size_px: side of the pictures, or (height, width), that learned positions are made for;
            others are encoded too.
        channels: of the pictures.
        position: ``learned`` (ViT), ``sincos`` (MAE) or ``rotary``.
        pool: what the picture's one vector is: ``cls`` adds a [CLS] token; ``mean`` of the visible
            patches; ``first`` patch; ``last`` patch, for causal attention.
        registers: further prefix tokens, which nobody reads.
        mask_token: whether to learn a vector for patches hidden by a mask of mode ``replace``.
        mlp: see `Trunk`; so for the rest.
        norm_first: pre-norm or post-norm.
        norm: kind of norm.
        norm_eps: its epsilon.
        qk_norm: whether queries and keys are normed.
        layer_scale: initial factor of residual branches.
        drop_path: chance to skip a branch of the last block, per crop.
        dropout: probability of zeroing an output of a branch.
        init_std: of linear layers; None means Xavier.
        recompute: compute blocks again in the backward pass, to save memory.
        stem_norm: a norm before the first block of a pre-norm trunk too.

    Raises:
        ValueError: sizes that do not fit together, or are missing without a preset.
    """

    def __init__(
        self,
        preset: VisionPreset | None = None,
        width: Count | None = None,
        depth: Count | None = None,
        num_heads: Count | None = None,
        mlp_ratio: Positive | None = None,
        patch: Count = 16,
        size_px: Count | tuple[Count, Count] = 224,
        channels: Count = 3,
        position: Position = "learned",
        pool: Pool = "cls",
        registers: Whole = 0,
        mask_token: bool = False,
        mlp: FeedForwardKind = "gelu",
        norm_first: bool = True,
        norm: Norm = "layer",
        norm_eps: Positive = 1e-6,
        qk_norm: bool = False,
        layer_scale: Positive | None = None,
        drop_path: Probability = 0.0,
        dropout: Probability = 0.0,
        init_std: Positive | None = None,
        recompute: bool = False,
        stem_norm: bool = False,
    ) -> None:
        size = choose_size(VISION, preset, width, depth, num_heads, mlp_ratio)
        height_px, width_px = (size_px, size_px) if isinstance(size_px, int) else size_px
        super().__init__(
            Trunk(
                size.width,
                size.depth,
                size.num_heads,
                mlp_ratio=size.mlp_ratio,
                mlp=mlp,
                norm_first=norm_first,
                norm=norm,
                norm_eps=norm_eps,
                qk_norm=qk_norm,
                layer_scale=layer_scale,
                drop_path=drop_path,
                dropout=dropout,
                init_std=init_std,
                recompute=recompute,
                stem_norm=stem_norm,
            ),
            width=size.width,
            head_width=size.width // size.num_heads,
            position=position,
            grid=patch_grid(height_px, width_px, patch),
            pool=pool,
            registers=registers,
        )
        self.patch, self.channels = patch, channels
        self.stem = PatchEmbed(patch, channels, size.width, init_std)
        self.mask_fill = MaskFill(size.width) if mask_token else None

    @property
    def patch_values(self) -> int:
        """How many numbers a patch holds."""
        return self.channels * self.patch**2

    def layout(self, view: View) -> Layout:
        """One token a patch, row by row."""
        grid = patch_grid(view.values.shape[-2], view.values.shape[-1], self.patch)
        return Layout(grid, view.present[..., None].expand(-1, -1, grid[0] * grid[1]))

    def forward(
        self,
        view: View,
        mask: Mask | None = None,
        attend: Attend = "full",
        keep: Sequence[str] = (),
    ) -> Features:
        """Encode pictures ``[batch, crops, channels, height, width]``.

        Raises:
            ValueError: the pictures do not fit, or a mask needs a vector that was not asked for.
        """
        if view.values.dim() != 5 or view.values.shape[2] != self.channels:
            raise ValueError(
                f"values must be [batch, crops, {self.channels} channels, height, width], "
                f"but are {list(view.values.shape)}"
            )
        layout = self.layout(view)
        valid = layout.valid.flatten(0, 1)
        images = view.values.flatten(0, 1)
        # Whatever an absent picture holds, not even its NaN may reach a gradient.
        images = torch.where(view.present.flatten()[:, None, None, None], images, 0)
        hidden = hidden_by(mask, "input")
        if hidden is not None:
            images = self._without(images, hidden)
        tokens = self.stem(images)
        hidden = hidden_by(mask, "replace")
        if mask is not None and hidden is not None:
            tokens = self._fill(tokens, hidden, mask, view)
        return self.encode(tokens, valid, view, layout.grid, mask, attend, keep, is_full=True)

    def _without(
        self,
        images: Float[Tensor, "images channels height width"],
        hidden: Bool[Tensor, "images patches"],
    ) -> Float[Tensor, "images channels height width"]:
        rows, columns = patch_grid(images.shape[-2], images.shape[-1], self.patch)
        whole = hidden.view(-1, 1, rows, columns)
        whole = whole.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        return images.masked_fill(whole, 0)

    def _fill(
        self,
        tokens: Float[Tensor, "images patches width"],
        hidden: Bool[Tensor, "images patches"],
        mask: Mask,
        view: View,
    ) -> Float[Tensor, "images patches width"]:
        if self.mask_fill is None:
            raise ValueError("mask_token must be true for masks of mode 'replace', but is false")
        if mask.fill is None:
            return self.mask_fill(tokens, hidden)  # type: ignore[no-any-return]
        fill, num = mask.fill.flatten(0, 1), tokens.shape[1]
        # Another patch of the same picture: a step of 1 to num - 1 patches, around the end.
        step = 1 + sequence_draw(view).integers("replace", max(num - 1, 1), num)
        other = (torch.arange(num, device=tokens.device) + step) % num
        others = tokens.gather(1, other[..., None].expand_as(tokens))
        replaced = torch.where((hidden & (fill == 1))[..., None], others, tokens)
        return self.mask_fill(replaced, hidden & (fill == 0))  # type: ignore[no-any-return]
