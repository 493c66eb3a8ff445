"""Rectangles on a grid of tokens, one in each crop."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.rng import Draw


def sides(
    grid: tuple[int, ...], area: Float[Tensor, "batch crops"], slope: Float[Tensor, "batch crops"]
) -> tuple[Float[Tensor, "batch crops"], Float[Tensor, "batch crops"]]:
    """Height and width, whole numbers from 1 to the grid's, of about an area.

    Args:
        grid: tokens along each axis.
        area: places wanted.
        slope: height over width wanted.
    """
    height, width = (area * slope).sqrt(), (area * (1 / slope)).sqrt()
    return height.round().clamp(1, grid[0]), width.round().clamp(1, grid[1])


def put_rectangle(
    grid: tuple[int, ...],
    height: Float[Tensor, "batch crops"],
    width: Float[Tensor, "batch crops"],
    draw: Draw,
) -> Bool[Tensor, "batch crops rows columns"]:
    """A rectangle of the given sides, anywhere inside the grid."""
    along = []
    for axis, (side, length) in enumerate(zip((height, width), grid, strict=True)):
        room = length - side + 1
        start = (draw.uniform(f"start.{axis}", side.shape[1]) * room).floor()[..., None]
        place = torch.arange(length, device=side.device)
        along.append((place >= start) & (place < start + side[..., None]))
    return along[0][..., :, None] & along[1][..., None, :]
