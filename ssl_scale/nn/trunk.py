"""The one transformer trunk: blocks on packed tokens, whatever the modality."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssl_scale.nn.blocks import Block
from ssl_scale.nn.drop_path import survival
from ssl_scale.nn.mlp import FeedForwardKind
from ssl_scale.nn.norm import Norm, make_norm
from ssl_scale.nn.packing import Packing
from ssl_scale.nn.position import Rotation
from ssl_scale.nn.setting import Setting
from ssl_scale.rng import Draw
from ssl_scale.types import Attend


class Trunk(nn.Module):
    """Transformer blocks with the norm that stands before or after them.

    Padded tokens go through it like this::

        packing = Packing.of(valid)
        out, _ = trunk(packing.pack(tokens), packing=packing)
        out = packing.unpack(out)

    Args:
        width: features of a token.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: features inside the feed-forward layer, over the width.
        mlp: ``gelu``, its approximation ``quick_gelu``, or ``swiglu`` with as many parameters.
        norm_first: pre-norm with a norm after the last block (ViT), or post-norm with a norm before
            the first (BERT).
        stem_norm: with pre-norm, whether there is a norm before the first block too (CLIP's vision
            encoder).
        norm: kind of norm.
        norm_eps: its epsilon.
        qk_norm: whether queries and keys are normed.
        layer_scale: initial factor of each residual branch; None for no factor.
        drop_path: chance that a sequence skips a branch of the last block; see `survival`.
        dropout: probability of zeroing an output of a branch.
        init_std: see `Linear`.
        recompute: keep only each block's input for the backward pass and compute the rest again:
            less memory, about a third more time.

    Raises:
        ValueError: `drop_path` is not in [0, 1).
    """

    def __init__(
        self,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        mlp: FeedForwardKind = "gelu",
        norm_first: bool = True,
        norm: Norm = "layer",
        norm_eps: float = 1e-6,
        qk_norm: bool = False,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        init_std: float | None = None,
        recompute: bool = False,
        stem_norm: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path must be in [0, 1), but is {drop_path}")
        self.drop_path, self.dropout, self.recompute = drop_path, dropout, recompute
        is_normed = stem_norm or not norm_first
        self.norm_before = make_norm(norm, width, norm_eps) if is_normed else None
        self.blocks = nn.ModuleList(
            Block(
                width,
                num_heads,
                hidden=round(width * mlp_ratio),
                mlp=mlp,
                norm_first=norm_first,
                norm=norm,
                norm_eps=norm_eps,
                qk_norm=qk_norm,
                layer_scale=layer_scale,
                dropout=dropout,
                init_std=init_std,
            )
            for _ in range(depth)
        )
        self.norm_after = make_norm(norm, width, norm_eps) if norm_first else None

    def forward(
        self,
        tokens: Float[Tensor, "total width"],
        *,
        packing: Packing,
        attend: Attend = "full",
        rotation: Rotation | None = None,
        draw: Draw | None = None,
        keep: Sequence[str] = (),
    ) -> tuple[Float[Tensor, "total width"], dict[str, Float[Tensor, "total width"]]]:
        """Run the blocks.

        Args:
            tokens: packed.
            packing: where the sequences lie.
            attend: which tokens a token sees.
            rotation: rotary positions of the tokens.
            draw: randomness of each sequence, for drop path in training.
            keep: which intermediates to return: ``stem`` is what enters the trunk, ``layer.N`` what
                leaves block N, from 0.

        Returns:
            What leaves the last norm, and the intermediates by name.

        Raises:
            ValueError: there is no intermediate of a name in `keep`, or no `draw` for drop path.
        """
        self._check(keep)
        kept = {"stem": tokens} if "stem" in keep else {}
        tokens = tokens if self.norm_before is None else self.norm_before(tokens)
        setting = Setting(packing, attend, rotation)
        factors = self._survival(tokens, packing, draw)
        for number, block in enumerate(self.blocks):
            tokens = self._run(block, tokens, None if factors is None else factors[number], setting)
            if f"layer.{number}" in keep:
                kept[f"layer.{number}"] = tokens
        return tokens if self.norm_after is None else self.norm_after(tokens), kept

    def _run(
        self, block: nn.Module, tokens: Tensor, factors: Tensor | None, setting: Setting
    ) -> Tensor:
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return block(tokens, factors, setting=setting)  # type: ignore[no-any-return]
        return checkpoint(  # type: ignore[no-any-return]
            block,
            tokens,
            factors,
            use_reentrant=False,
            preserve_rng_state=self.dropout > 0,
            setting=setting,
        )

    def _survival(
        self, tokens: Tensor, packing: Packing, draw: Draw | None
    ) -> Float[Tensor, "depth 2 total 1"] | None:
        if not (self.drop_path and self.training):
            return None
        if draw is None:
            raise ValueError("draw must be given for drop_path in training, but is None")
        factors = packing.spread(survival(draw, self.drop_path, len(self.blocks)))
        return factors.to(tokens.dtype).T.contiguous().view(len(self.blocks), 2, -1, 1)

    def _check(self, keep: Sequence[str]) -> None:
        names = ["stem", *(f"layer.{number}" for number in range(len(self.blocks)))]
        unknown = [name for name in keep if name not in names]
        if unknown:
            raise ValueError(f"kept intermediates must be among {names}, but are {unknown}")
