"""Where the pixels of a crop come from: crop, flip, rotation and shift as one resampling.

The four are composed into one affine map from the crop's coordinates to the image's, both in
[-1, 1], so that pixels are interpolated once. All crops of an image lie below each other in one
sampling grid, so the image is not repeated either.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ssl_scale.rng import Draw

Padding: TypeAlias = Literal["border", "zeros"]

_TRIES = 10  # as in torchvision's RandomResizedCrop, whose distribution the papers' numbers rest on


@dataclass(frozen=True)
class Warp:
    """How far crops may stray from the whole, upright image; see `AugmentedImage` for the words."""

    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float = 0.0
    rotate_degrees: float = 0.0
    translate: float = 0.0
    padding: Padding = "border"

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be a range within (0, 1], but is {list(self.scale)}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be a range above 0, but is {list(self.ratio)}")


@dataclass(frozen=True, eq=False)
class Affine:
    """A map from a crop's coordinates ``(u, v)`` to the image's: ``x = xu u + xv v + x0``."""

    xu: Float[Tensor, "batch crops"]
    xv: Float[Tensor, "batch crops"]
    x0: Float[Tensor, "batch crops"]
    yu: Float[Tensor, "batch crops"]
    yv: Float[Tensor, "batch crops"]
    y0: Float[Tensor, "batch crops"]


def warp(
    images: Float[Tensor, "batch channels height width"],
    how: Warp,
    size_px: int,
    crops: int,
    draw: Draw,
) -> Float[Tensor, "batch crops channels size size"]:
    """Random crops of every image."""
    height, width = images.shape[-2:]
    supersampling = _supersampling(how, height, width, size_px)
    affine = draw_affine(how, height, width, crops, draw)
    grid = _sampling_grid(affine, size_px * supersampling)
    pixels = F.grid_sample(
        images, grid.flatten(1, 2), padding_mode=how.padding, align_corners=False
    )
    if supersampling > 1:
        pixels = F.avg_pool2d(pixels, supersampling)
    batch, channels = pixels.shape[:2]
    return pixels.view(batch, channels, crops, size_px, size_px).transpose(1, 2).contiguous()


def draw_affine(how: Warp, height: int, width: int, crops: int, draw: Draw) -> Affine:
    """Compose crop, flip, rotation and shift, drawn for every sample and crop."""
    half_width, half_height, centre_x, centre_y = _draw_box(how, height, width, crops, draw)
    mirror = 1 - 2 * draw.chance("flip", how.flip, crops).double()
    angle = _spread(draw, "rotate", math.radians(how.rotate_degrees), crops)
    # A shift by a share of the crop's side is twice that in coordinates, whose side is 2.
    right = _spread(draw, "right", 2 * how.translate, crops)
    down = _spread(draw, "down", 2 * how.translate, crops)
    # Read from the crop to the image: undo the shift, the rotation, the flip, then the crop.
    xu, xv = half_width * mirror * angle.cos(), half_width * mirror * angle.sin()
    yu, yv = -half_height * angle.sin(), half_height * angle.cos()
    x0, y0 = centre_x - xu * right - xv * down, centre_y - yu * right - yv * down
    return Affine(*(value.float() for value in (xu, xv, x0, yu, yv, y0)))


def _draw_box(
    how: Warp, height: int, width: int, crops: int, draw: Draw
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Half sides and centres of the crops, in the image's coordinates, where it is 2 by 2.

    Area and ratio are drawn again until the box fits, as in torchvision: here several pairs at
    once, of which the first that fits counts, and otherwise the largest box in the centre.
    """
    low, high = (math.log(bound) for bound in how.ratio)
    area = draw.uniform("area", crops, _TRIES).double()
    area = how.scale[0] + (how.scale[1] - how.scale[0]) * area
    ratio = (low + (high - low) * draw.uniform("ratio", crops, _TRIES).double()).exp()
    # Sides as shares of the image's, in whose units the ratio shrinks by the image's own.
    ratio = ratio * height / width
    wide, tall = (area * ratio).sqrt(), (area / ratio).sqrt()
    fits = (wide <= 1) & (tall <= 1)
    first = fits.long().argmax(-1, keepdim=True)
    some, fallback = fits.any(-1), _largest_box(how, height, width)
    wide = torch.where(some, wide.gather(-1, first).squeeze(-1), fallback[0])
    tall = torch.where(some, tall.gather(-1, first).squeeze(-1), fallback[1])
    across = torch.where(some, draw.uniform("across", crops).double(), 0.5)
    along = torch.where(some, draw.uniform("along", crops).double(), 0.5)
    return wide, tall, (1 - wide) * (2 * across - 1), (1 - tall) * (2 * along - 1)


def _largest_box(how: Warp, height: int, width: int) -> tuple[float, float]:
    """Shares of the image's sides that the largest box of an allowed ratio covers."""
    own = width / height
    nearest = min(max(own, how.ratio[0]), how.ratio[1])
    return min(nearest / own, 1.0), min(own / nearest, 1.0)


def _spread(draw: Draw, name: str, largest: float, crops: int) -> Tensor:
    """Uniform in [-largest, largest), in float64: sines of it must not depend on the batch."""
    return largest * (2 * draw.uniform(name, crops).double() - 1)


def _supersampling(how: Warp, height: int, width: int, size_px: int) -> int:
    """How many samples a pixel is averaged over, along each axis.

    Bilinear sampling reads two pixels, so a crop that shrinks more aliases. The mean over a finer
    grid is an area filter of the pixel's own footprint. The finest that any crop may need is taken
    for all, because it must not depend on what was drawn: shapes that depend on values stall a
    GPU. Where crops are enlarged it changes little and costs samples, so it is 1 up to a shrinking
    by 1.5.
    """
    wide = width * min(1.0, math.sqrt(how.scale[1] * how.ratio[1] * height / width))
    tall = height * min(1.0, math.sqrt(how.scale[1] / how.ratio[0] * width / height))
    return max(1, round(max(wide, tall) / size_px))


def _sampling_grid(affine: Affine, side: int) -> Float[Tensor, "batch crops side side 2"]:
    """Where each pixel's centre lies in the image."""
    places = torch.arange(side, device=affine.xu.device, dtype=torch.float32)
    places = (2 * places + 1) / side - 1
    u, v = places[None, :], places[:, None]
    xu, xv, x0, yu, yv, y0 = (
        value[..., None, None]
        for value in (affine.xu, affine.xv, affine.x0, affine.yu, affine.yv, affine.y0)
    )
    return torch.stack((xu * u + xv * v + x0, yu * u + yv * v + y0), dim=-1)
