"""Crops, flips, rotations and shifts, read off images whose pixels tell their own place."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_scale.data.views.geometry import Warp, warp
from ssl_scale.rng import Draw

WHOLE = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}


def seeds(n: int) -> Draw:
    return Draw(torch.arange(n) * 7919 + 3)


def places(n: int, height: int, width: int) -> Tensor:
    """Images of two channels: each pixel's x and y in units of pixels, from the left upper edge."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y]).float().expand(n, -1, -1, -1)


def torchvision_boxes(n: int, height: int, width: int, how: Warp) -> np.ndarray:
    """``RandomResizedCrop.get_params`` as torchvision has it, without rounding."""
    rng, boxes = np.random.default_rng(0), []
    for _ in range(n):
        for _ in range(10):
            area = height * width * rng.uniform(*how.scale)
            ratio = math.exp(rng.uniform(math.log(how.ratio[0]), math.log(how.ratio[1])))
            w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if w <= width and h <= height:
                boxes.append((rng.uniform(0, width - w), rng.uniform(0, height - h), w, h))
                break
        else:
            ratio = min(max(width / height, how.ratio[0]), how.ratio[1])
            w, h = min(width, height * ratio), min(height, width / ratio)
            boxes.append(((width - w) / 2, (height - h) / 2, w, h))
    return np.array(boxes)


@pytest.mark.parametrize("shape", [(40, 40), (30, 50), (20, 90)])
def test_boxes_are_spread_like_those_of_torchvision(shape: tuple[int, int]) -> None:
    height, width = shape
    how = Warp((0.2, 1.0), (3 / 4, 4 / 3))
    size = max(shape)  # no supersampling, so that single pixels tell places
    seen = warp(places(3000, height, width), how, size, 1, seeds(3000))[:, 0]
    # The centre and the slope of the coordinates survive padding at the border.
    middle = size // 2
    w = (seen[:, 0, middle, middle] - seen[:, 0, middle, middle - 1]) * size
    h = (seen[:, 1, middle, middle] - seen[:, 1, middle - 1, middle]) * size
    left = seen[:, 0, middle, middle] - w * (middle + 0.5) / size
    top = seen[:, 1, middle, middle] - h * (middle + 0.5) / size
    ours = torch.stack([left, top, w, h], 1).numpy()
    theirs = torchvision_boxes(3000, height, width, how)
    quantiles = np.linspace(0.02, 0.98, 25)
    for column, side in zip(range(4), (width, height, width, height), strict=True):
        difference = np.quantile(ours[:, column], quantiles) - np.quantile(
            theirs[:, column], quantiles
        )
        assert np.abs(difference).max() < 0.05 * side


def test_the_whole_upright_image_comes_back_as_it_was() -> None:
    images = torch.rand(3, 3, 16, 16)
    crops = warp(images, Warp(**WHOLE), 16, 2, seeds(3))
    torch.testing.assert_close(crops, images[:, None].expand(-1, 2, -1, -1, -1), atol=1e-5, rtol=0)


def test_a_flip_mirrors_left_and_right() -> None:
    images = torch.rand(2, 1, 9, 9)
    crops = warp(images, Warp(**WHOLE, flip=1.0), 9, 1, seeds(2))
    torch.testing.assert_close(crops[:, 0], images.flip(-1), atol=1e-5, rtol=0)


def test_flips_happen_as_often_as_asked() -> None:
    crops = warp(places(4000, 4, 4), Warp(**WHOLE, flip=0.3), 4, 1, seeds(4000))
    flipped = (crops[:, 0, 0, 0, 0] > 2).float().mean()
    assert abs(flipped - 0.3) < 0.03


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_rotation_keeps_distances_and_stays_within_its_bounds(flip: float) -> None:
    crops = warp(
        places(500, 33, 33), Warp(**WHOLE, flip=flip, rotate_degrees=30.0), 33, 1, seeds(500)
    )
    near = crops[:, 0, :, 10:23, 10:23]  # away from the border, where padding bends the ramps
    right, down = near.diff(dim=-1)[..., :-1, :], near.diff(dim=-2)[..., :-1]
    torch.testing.assert_close(right.norm(dim=1), torch.ones(500, 12, 12), atol=1e-4, rtol=0)
    assert ((right * down).sum(1).abs() < 1e-4).all()
    mirror = 1 - 2 * flip
    angle = torch.atan2(mirror * right[:, 1, 0, 0], mirror * right[:, 0, 0, 0]).rad2deg()
    assert angle.abs().max() <= 30 and angle.min() < -28 and angle.max() > 28
    torch.testing.assert_close(near[:, :, 6, 6], torch.full((500, 2), 16.5), atol=1e-3, rtol=0)


def test_a_shift_moves_by_a_share_of_the_crops_side() -> None:
    crops = warp(places(500, 20, 20), Warp(**WHOLE, translate=0.25), 20, 1, seeds(500))
    moved = crops[:, 0, :, 10, 10] - 10.5
    assert moved.abs().max() <= 5 and moved.abs().max() > 4.8
    assert (moved.mean(0).abs() < 0.5).all()


def test_a_rotation_of_a_small_crop_turns_about_the_crops_own_centre() -> None:
    small = {"scale": (0.1, 0.1), "ratio": (1.0, 1.0)}
    still = warp(places(50, 60, 60), Warp(**small), 21, 1, seeds(50))
    turned = warp(places(50, 60, 60), Warp(**small, rotate_degrees=40.0), 21, 1, seeds(50))
    torch.testing.assert_close(still[..., 10, 10], turned[..., 10, 10], atol=1e-3, rtol=0)


def test_what_lies_outside_is_black_or_the_border() -> None:
    white = torch.ones(20, 1, 8, 8)
    far = {**WHOLE, "translate": 0.9}
    assert warp(white, Warp(**far, padding="zeros"), 8, 1, seeds(20)).min() == 0
    assert warp(white, Warp(**far, padding="border"), 8, 1, seeds(20)).min() > 0.999


def test_fine_patterns_do_not_alias_when_an_image_shrinks() -> None:
    noise = torch.rand(1, 1, 96, 96)
    shrunk = warp(noise, Warp(**WHOLE), 32, 1, seeds(1))[:, 0]
    area = torch.nn.functional.interpolate(noise, (32, 32), mode="area")
    torch.testing.assert_close(shrunk, area, atol=1e-4, rtol=0)
    grid = torch.nn.functional.affine_grid(
        torch.eye(2, 3)[None], [1, 1, 32, 32], align_corners=False
    )
    pointwise = torch.nn.functional.grid_sample(noise, grid, align_corners=False)
    assert shrunk.var() < pointwise.var() / 4


def test_an_empty_batch_has_no_crops() -> None:
    assert warp(torch.rand(0, 3, 8, 8), Warp(**WHOLE), 4, 2, seeds(0)).shape == (0, 2, 3, 4, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": (0.5, 0.2)}, r"scale must be a range within \(0, 1\], but is \[0.5, 0.2\]"),
        ({"scale": (0.5, 1.2)}, "scale must be"),
        ({"ratio": (2.0, 1.0)}, "ratio must be a range above 0"),
    ],
)
def test_ranges_that_are_none_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Warp(**{**WHOLE, **wrong})  # type: ignore[arg-type]
