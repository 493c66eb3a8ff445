"""Residual convolutional networks.

The modules that own parameters take pictures ``[images, channels, height, width]`` and which of
them are there; `ResNet` around them knows views and features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl_scale.encoders.encoder import Encoder
from ssl_scale.heads.batch_norm import SyncedBatchNorm2d
from ssl_scale.nn.convolution import Convolution
from ssl_scale.part import Count
from ssl_scale.types import Attend, Features, Layout, Mask, View

Kind: TypeAlias = Literal["basic", "bottleneck"]
Stem: TypeAlias = Literal["imagenet", "cifar"]
ResNetPreset: TypeAlias = Literal["18", "34", "50", "101", "152"]


@dataclass(frozen=True)
class Stages:
    """What a network is made of: the kind of its blocks, and how many each stage has."""

    kind: Kind
    blocks: tuple[int, ...]


# Deep Residual Learning for Image Recognition, arXiv 1512.03385, table 1.
PRESETS: dict[str, Stages] = {
    "18": Stages("basic", (2, 2, 2, 2)),
    "34": Stages("basic", (3, 4, 6, 3)),
    "50": Stages("bottleneck", (3, 4, 6, 3)),
    "101": Stages("bottleneck", (3, 4, 23, 3)),
    "152": Stages("bottleneck", (3, 8, 36, 3)),
}
EXPANSION: dict[Kind, int] = {"basic": 1, "bottleneck": 4}


class ResNet(Encoder):
    """A residual network on pictures: its tokens are the cells of the last stage.

    Paper: Deep Residual Learning for Image Recognition, arXiv 1512.03385, table 1.

    Differs: a bottleneck halves the picture in its 3 x 3 convolution, not in its first one ("v1.5",
    as the usual implementations and the self-supervised papers have it). Batch statistics are those
    of the global batch's pictures that exist; all crops of a forward are one population.

    Args:
        preset: a depth from the paper; arguments that are given override it.
        kind: of the residual blocks.
        blocks: how many each stage has; a stage halves the picture and doubles the channels.
        stem_width: channels of the stem and of the first stage; SimCLR's "ResNet-50 (2x)" has 128.
        channels: of the pictures.
        stem: ``imagenet`` divides the picture by 4 (7 x 7 convolution, pooling); ``cifar`` leaves
            its size (3 x 3 convolution: SimCLR, arXiv 2002.05709, appendix B.9).
        zero_init: whether each residual branch starts as zero, by its last norm's factor (Accurate,
            Large Minibatch SGD, arXiv 1706.02677, section 5.1).

    Raises:
        ValueError: neither a preset nor kind and blocks are given.
    """

    def __init__(
        self,
        preset: ResNetPreset | None = None,
        kind: Kind | None = None,
        blocks: tuple[Count, ...] | None = None,
        stem_width: Count = 64,
        channels: Count = 3,
        stem: Stem = "imagenet",
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        chosen = PRESETS[preset] if preset is not None else None
        kind = kind or (chosen.kind if chosen else None)
        blocks = blocks or (chosen.blocks if chosen else None)
        if kind is None or not blocks:
            raise ValueError(
                f"kind and blocks must be given where there is no preset, but are {kind} and "
                f"{blocks}"
            )
        self.channels = channels
        self.stride = (4 if stem == "imagenet" else 1) * 2 ** (len(blocks) - 1)
        self.stem = ConvolutionStem(channels, stem_width, stem)
        self.stages = nn.ModuleList()
        width = stem_width
        for number, num_blocks in enumerate(blocks):
            inner = stem_width * 2**number
            stride = 1 if number == 0 else 2
            self.stages.append(Stage(width, inner, kind, num_blocks, stride, zero_init))
            width = inner * EXPANSION[kind]
        self.width = width

    def layout(self, view: View) -> Layout:
        """One token a cell of the last stage, row by row."""
        height, width = view.values.shape[-2:]
        # Every halving rounds up.
        rows, columns = -(-height // self.stride), -(-width // self.stride)
        return Layout((rows, columns), view.present[..., None].expand(-1, -1, rows * columns))

    def forward(
        self,
        view: View,
        mask: Mask | None = None,
        attend: Attend = "full",
        keep: Sequence[str] = (),
    ) -> Features:
        """Encode pictures ``[batch, crops, channels, height, width]``.

        `keep` names ``stem`` and ``layer.N``, the cells of stage N, from 0.

        Raises:
            ValueError: the pictures do not fit, or the question is one for transformers.
        """
        self._check(view, mask, attend, keep)
        layout = self.layout(view)
        present = view.present.flatten()
        images = view.values.flatten(0, 1)
        # Whatever an absent picture holds, not even its NaN may reach a gradient.
        images = torch.where(present[:, None, None, None], images, 0)
        if mask is not None:
            images = self._without(images, mask.hidden.flatten(0, 1), layout.grid)
        valid = None if bool(present.all()) else present
        cells: Tensor = self.stem(images, valid)
        passed = {"stem": cells}
        for number, stage in enumerate(self.stages):
            cells = stage(cells, valid)
            passed[f"layer.{number}"] = cells
        shape = tuple(view.valid.shape[:2])
        tokens = _tokens(cells, present, shape)
        places = torch.arange(tokens.shape[2], device=tokens.device)
        return Features(
            tokens=tokens,
            valid=layout.valid,
            pooled=tokens.mean(2),
            prefix=tokens[:, :, :0],
            origin=places.expand(*shape, -1),
            kept={name: _tokens(passed[name], present, shape) for name in keep},
        )

    def _check(self, view: View, mask: Mask | None, attend: Attend, keep: Sequence[str]) -> None:
        if view.values.dim() != 5 or view.values.shape[2] != self.channels:
            raise ValueError(
                f"values must be [batch, crops, {self.channels} channels, height, width], "
                f"but are {list(view.values.shape)}"
            )
        if mask is not None and mask.mode != "input":
            raise ValueError(
                f"the mode of a mask over a ResNet must be 'input', but is {mask.mode!r}: "
                "convolutions can neither leave cells out nor put a vector in their place"
            )
        if attend != "full":
            raise ValueError(f"attend must be 'full' for a ResNet, but is {attend!r}")
        names = ["stem", *(f"layer.{number}" for number in range(len(self.stages)))]
        unknown = [name for name in keep if name not in names]
        if unknown:
            raise ValueError(f"kept intermediates must be among {names}, but are {unknown}")

    def _without(
        self,
        images: Float[Tensor, "images channels height width"],
        hidden: Bool[Tensor, "images cells"],
        grid: tuple[int, ...],
    ) -> Float[Tensor, "images channels height width"]:
        whole = hidden.view(-1, 1, *grid)
        whole = whole.repeat_interleave(self.stride, 2).repeat_interleave(self.stride, 3)
        return images.masked_fill(whole[..., : images.shape[-2], : images.shape[-1]], 0)


class ConvolutionStem(nn.Module):
    """What comes before the stages.

    Args:
        channels: of the pictures.
        width: channels that come out.
        kind: see `ResNet`.
    """

    def __init__(self, channels: int, width: int, kind: Stem) -> None:
        super().__init__()
        self.is_pooled = kind == "imagenet"
        kernel, stride = (7, 2) if self.is_pooled else (3, 1)
        self.convolution = Convolution(channels, width, kernel, stride)
        self.norm = SyncedBatchNorm2d(width)

    def forward(
        self,
        images: Float[Tensor, "images channels height width"],
        valid: Bool[Tensor, " images"] | None = None,
    ) -> Float[Tensor, "images width_ rows columns"]:
        """The first cells."""
        cells = F.relu(self.norm(self.convolution(images), valid))
        return F.max_pool2d(cells, 3, stride=2, padding=1) if self.is_pooled else cells


class Stage(nn.Module):
    """Blocks of one size.

    Args:
        width: channels that come in.
        inner: channels inside the blocks.
        kind: of the blocks.
        num_blocks: how many.
        stride: of the first block.
        zero_init: see `ResNet`.
    """

    def __init__(
        self, width: int, inner: int, kind: Kind, num_blocks: int, stride: int, zero_init: bool
    ) -> None:
        super().__init__()
        out = inner * EXPANSION[kind]
        self.blocks = nn.ModuleList(
            ResidualBlock(out if number else width, inner, kind, 1 if number else stride, zero_init)
            for number in range(num_blocks)
        )

    def forward(
        self,
        cells: Float[Tensor, "images width rows columns"],
        valid: Bool[Tensor, " images"] | None = None,
    ) -> Float[Tensor, "images out fewer_rows fewer_columns"]:
        """Apply the blocks."""
        for block in self.blocks:
            cells = block(cells, valid)
        return cells


class ResidualBlock(nn.Module):
    """Convolutions with batch norms, and around them what came in.

    Paper: arXiv 1512.03385, figure 5: ``basic`` left, ``bottleneck`` right; where the size changes,
    what came in is projected (option B of section 3.3).

    Args:
        width: channels that come in.
        inner: channels inside.
        kind: of the block.
        stride: 2 halves the picture.
        zero_init: see `ResNet`.
    """

    def __init__(self, width: int, inner: int, kind: Kind, stride: int, zero_init: bool) -> None:
        super().__init__()
        out = inner * EXPANSION[kind]
        # (inputs, outputs, kernel, stride) of each convolution.
        layers = (
            [(width, inner, 3, stride), (inner, out, 3, 1)]
            if kind == "basic"
            else [(width, inner, 1, 1), (inner, inner, 3, stride), (inner, out, 1, 1)]
        )
        self.convolutions = nn.ModuleList(Convolution(*layer) for layer in layers)
        last = len(layers) - 1
        self.norms = nn.ModuleList(
            SyncedBatchNorm2d(layer[1], start=0.0 if zero_init and number == last else 1.0)
            for number, layer in enumerate(layers)
        )
        is_changed = stride != 1 or width != out
        self.shortcut = Convolution(width, out, 1, stride) if is_changed else None
        self.shortcut_norm = SyncedBatchNorm2d(out) if is_changed else None

    def forward(
        self,
        cells: Float[Tensor, "images width rows columns"],
        valid: Bool[Tensor, " images"] | None = None,
    ) -> Float[Tensor, "images out fewer_rows fewer_columns"]:
        """The branch and what came in, summed."""
        branch = cells
        for number, (convolution, norm) in enumerate(
            zip(self.convolutions, self.norms, strict=True)
        ):
            branch = norm(convolution(F.relu(branch) if number else branch), valid)
        if self.shortcut is not None and self.shortcut_norm is not None:
            cells = self.shortcut_norm(self.shortcut(cells), valid)
        return F.relu(branch + cells)


def _tokens(
    cells: Float[Tensor, "images width rows columns"],
    present: Bool[Tensor, " images"],
    shape: tuple[int, ...],
) -> Float[Tensor, "batch crops cells width"]:
    """Cells row by row; zero for absent pictures, so that nothing flows back from them."""
    tokens = torch.where(present[:, None, None], cells.flatten(2).transpose(1, 2), 0)
    return tokens.view(*shape, *tokens.shape[1:])
