"""Where a token stands: added to it (learned, sine-cosine) or turned into its queries and keys.

A grid is a tuple of sizes, ``(height, width)`` or ``(length,)``; its places are counted row by row.
Tables are computed for the grid at hand, so pictures of several sizes need nothing special. They
are cheap, and are not cached: a table made in inference mode could not be used in training.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def _coordinates(grid: tuple[int, ...], device: torch.device) -> Float[Tensor, "axes places"]:
    axes = [torch.arange(size, device=device, dtype=torch.float32) for size in grid]
    return torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")])


def _frequencies(num: int, base: float, device: torch.device) -> Float[Tensor, " num"]:
    steps = torch.arange(num, device=device, dtype=torch.float32)
    return torch.exp(steps * (-math.log(base) / num))


def sincos_table(
    grid: tuple[int, ...], width: int, device: torch.device | None = None
) -> Float[Tensor, "places width"]:
    """Sine-cosine positions: for each axis the sines, then the cosines, of all frequencies.

    Paper: Attention Is All You Need, arXiv 1706.03762, section 3.5; in two dimensions MAE's code
    (arXiv 2111.06377), where the column comes before the row.

    Raises:
        ValueError: the width is no multiple of twice the number of axes.
    """
    if width % (2 * len(grid)):
        raise ValueError(f"width must be a multiple of {2 * len(grid)}, but is {width}")
    device = device or torch.device("cpu")
    frequencies = _frequencies(width // (2 * len(grid)), 10000.0, device)
    angles = _coordinates(grid, device).flip(0)[..., None] * frequencies
    return torch.cat([part for axis in angles for part in (axis.sin(), axis.cos())], dim=-1)


def _ordered(table: Tensor, places: Tensor | None) -> Tensor:
    return table if places is None else table.index_select(0, places)


class SinCosPosition(nn.Module):
    """Adds fixed sine-cosine positions."""

    def forward(
        self,
        tokens: Float[Tensor, "sequences places width"],
        grid: tuple[int, ...],
        places: Int[Tensor, " places"] | None = None,
    ) -> Float[Tensor, "sequences places width"]:
        """The tokens with their places in the grid added; in its order unless told."""
        table = sincos_table(grid, tokens.shape[-1], tokens.device)
        return tokens + _ordered(table, places).to(tokens.dtype)


class LearnedPosition(nn.Module):
    """Adds a learned vector for each place.

    Another picture size reads the table interpolated (bicubic, as ViT fine-tunes at other
    resolutions: arXiv 2010.11929, section 3.2); a shorter sequence reads the start of it.

    Args:
        grid: the grid it has vectors for.
        width: features of a token.
    """

    def __init__(self, grid: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.empty(math.prod(grid), width))
        nn.init.trunc_normal_(self.table, std=0.02, a=-0.04, b=0.04)

    def forward(
        self,
        tokens: Float[Tensor, "sequences places width"],
        grid: tuple[int, ...],
        places: Int[Tensor, " places"] | None = None,
    ) -> Float[Tensor, "sequences places width"]:
        """The tokens with their places in the grid added; in its order unless told.

        Raises:
            ValueError: a sequence is longer than the table.
        """
        return tokens + _ordered(self._at(grid), places).to(tokens.dtype)

    def _at(self, grid: tuple[int, ...]) -> Tensor:
        return self.table if grid == self.grid else resized(self.table, self.grid, grid)


def resized(
    table: Float[Tensor, "places width"], old: tuple[int, ...], new: tuple[int, ...]
) -> Float[Tensor, "other_places width"]:
    """A table for another grid: bicubic in two dimensions, the start of it in one.

    Args:
        table: for each place of `old` a vector.
        old: the grid that it was made for.
        new: the grid that is wanted.

    Raises:
        ValueError: a sequence is longer than the table.
    """
    if len(new) == 1:
        if new[0] > old[0]:
            raise ValueError(f"length must be at most {old[0]} tokens, but is {new[0]}")
        return table[: new[0]]
    picture = table.float().T.reshape(1, -1, *old)
    other = F.interpolate(picture, size=new, mode="bicubic", align_corners=False)
    return other[0].flatten(1).T


@dataclass(frozen=True, eq=False)
class Rotation:
    """Rotary positions of packed tokens.

    Args:
        cos: ``[total, 1, head_width]``.
        sin: ``[total, 1, head_width]``.
    """

    cos: Tensor
    sin: Tensor

    def __call__(
        self, x: Float[Tensor, "total heads head_width"]
    ) -> Float[Tensor, "total heads head_width"]:
        """Turn each pair of features by its angle; feature i is paired with i + half."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat([-second, first], dim=-1) * self.sin


def rotary_angles(
    grid: tuple[int, ...], head_width: int, device: torch.device | None = None
) -> Float[Tensor, "places pairs"]:
    """The angle of each pair of features at each place.

    Paper: RoFormer, arXiv 2104.09864, section 3.2.2. In two dimensions the first half of the pairs
    turns with the row and the second with the column, with a base of 100: Rotary Position Embedding
    for Vision Transformer, arXiv 2403.13298, section 3.2 (axial).

    Raises:
        ValueError: the head's width is no multiple of twice the number of axes.
    """
    if head_width % (2 * len(grid)):
        raise ValueError(
            f"the width of a head must be a multiple of {2 * len(grid)} for rotary positions, "
            f"but is {head_width}"
        )
    device = device or torch.device("cpu")
    base = 10000.0 if len(grid) == 1 else 100.0
    frequencies = _frequencies(head_width // (2 * len(grid)), base, device)
    angles = _coordinates(grid, device)[..., None] * frequencies
    return torch.cat(list(angles), dim=-1)


def rotation(angles: Float[Tensor, "places pairs"], places: Int[Tensor, " total"]) -> Rotation:
    """The rotation of packed tokens, given the place of each; place -1 is not turned (a prefix)."""
    chosen = angles.index_select(0, places.clamp(min=0))
    chosen = torch.where(places[:, None] >= 0, chosen, 0)
    both = torch.cat([chosen, chosen], dim=-1)[:, None]
    return Rotation(both.cos(), both.sin())
