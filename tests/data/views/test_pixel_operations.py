"""Colour and blur against the standard library's and kornia's formulas."""

import colorsys
import math

import kornia
import pytest
import torch
from torch import Tensor

from ssl_scale.data.views.blur import GaussianBlur, blur
from ssl_scale.data.views.color import (
    ColorJitter,
    Grayscale,
    Solarize,
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    luma,
    turn_hue,
)
from ssl_scale.data.views.pixel_operation import PixelOperation, split_by_crop
from ssl_scale.rng import Draw

FACTORS = torch.tensor([0.0, 0.4, 1.0, 1.7])


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(4, 3, 12, 10, generator=torch.Generator().manual_seed(0))


def draw(n: int) -> tuple[Draw, Tensor]:
    return split_by_crop(Draw(torch.arange(n) * 104729), 1)


def test_brightness_equals_kornias(pixels: Tensor) -> None:
    expected = kornia.enhance.adjust_brightness_accumulative(pixels, FACTORS)
    torch.testing.assert_close(adjust_brightness(pixels, FACTORS), expected)


def test_contrast_equals_kornias(pixels: Tensor) -> None:
    expected = kornia.enhance.adjust_contrast_with_mean_subtraction(pixels, FACTORS)
    torch.testing.assert_close(adjust_contrast(pixels, FACTORS), expected, atol=1e-6, rtol=0)


def test_saturation_equals_kornias(pixels: Tensor) -> None:
    expected = kornia.enhance.adjust_saturation_with_gray_subtraction(pixels, FACTORS)
    torch.testing.assert_close(adjust_saturation(pixels, FACTORS), expected, atol=1e-6, rtol=0)


def test_hue_equals_kornias(pixels: Tensor) -> None:
    turns = torch.tensor([-0.5, -0.1, 0.0, 0.3])
    expected = kornia.enhance.adjust_hue(pixels, turns * 2 * math.pi)
    torch.testing.assert_close(turn_hue(pixels, turns), expected, atol=1e-5, rtol=0)


def test_hue_equals_the_standard_librarys_at_grey_and_pure_colours() -> None:
    colors = [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 1.0), (0.2, 0.2, 0.7)]
    pixels = torch.tensor(colors)[:, :, None, None]
    for turn in (-0.5, -0.2, 0.0, 0.25, 0.5):
        expected = []
        for color in colors:
            hue, saturation, value = colorsys.rgb_to_hsv(*color)
            expected.append(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))
        turned = turn_hue(pixels, torch.full((5,), turn))[..., 0, 0]
        torch.testing.assert_close(turned, torch.tensor(expected), atol=1e-6, rtol=0)


def test_luma_equals_kornias(pixels: Tensor) -> None:
    torch.testing.assert_close(luma(pixels), kornia.color.rgb_to_grayscale(pixels))


def test_blur_equals_kornias(pixels: Tensor) -> None:
    sigma = torch.tensor([0.1, 0.7, 1.5, 3.0])
    expected = kornia.filters.gaussian_blur2d(pixels, (9, 9), sigma[:, None].expand(-1, 2))
    torch.testing.assert_close(blur(pixels, sigma, radius=4), expected, atol=1e-6, rtol=0)


def test_blur_works_on_images_smaller_than_its_reach() -> None:
    pixels = torch.rand(2, 1, 4, 4)
    blurred = GaussianBlur(sigma=(5.0, 6.0), probability=1.0)(pixels, *draw(2))
    assert blurred.shape == pixels.shape and blurred.var() < pixels.var() / 4


def test_solarize_inverts_bright_pixels() -> None:
    pixels = torch.tensor([0.1, 0.49, 0.5, 0.9]).reshape(1, 1, 2, 2)
    expected = torch.tensor([0.1, 0.49, 0.5, 0.1]).reshape(1, 1, 2, 2)
    torch.testing.assert_close(Solarize(probability=1.0)(pixels, *draw(1)), expected)


@pytest.mark.parametrize(
    "operation",
    [ColorJitter(probability=1.0), Grayscale(1.0), Solarize(), GaussianBlur(probability=1.0)],
    ids=lambda operation: type(operation).__name__,
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_operations_keep_shape_and_range_for_any_channels(
    operation: PixelOperation, channels: int
) -> None:
    pixels = torch.rand(6, channels, 8, 8)
    changed = operation(pixels, *draw(6))
    assert changed.shape == pixels.shape
    assert changed.min() >= 0 and changed.max() <= 1


def test_one_channel_is_jittered_in_brightness_and_contrast_alone() -> None:
    pixels = torch.rand(6, 1, 8, 8)
    assert not torch.equal(ColorJitter(probability=1.0)(pixels, *draw(6)), pixels)
    only_color = ColorJitter(brightness=0.0, contrast=0.0, probability=1.0)
    assert torch.equal(only_color(pixels, *draw(6)), pixels)
    assert torch.equal(Grayscale(1.0)(pixels, *draw(6)), pixels)


def test_operations_change_the_share_of_crops_they_are_asked_to() -> None:
    pixels = torch.rand(3000, 3, 2, 2)
    changed = Grayscale(0.2)(pixels, *draw(3000))
    share = (changed != pixels).flatten(1).any(1).float().mean()
    assert abs(share - 0.2) < 0.03


def test_each_crop_can_have_its_own_probability() -> None:
    pixels = torch.ones(10, 1, 2, 2)
    crop_draw, crop = split_by_crop(Draw(torch.arange(5)), 2)
    changed = Solarize(probability=(1.0, 0.0))(pixels, crop_draw, crop).flatten(1).mean(1)
    assert changed.tolist() == [0.0, 1.0] * 5


def test_another_number_of_probabilities_than_of_crops_is_refused() -> None:
    with pytest.raises(ValueError, match=r"probability of Solarize must be one number or 3 .* is"):
        Solarize(probability=(1.0, 0.0)).check_crops(3)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hue must be in \[0, 0.5\], but is 0.7"):
        ColorJitter(hue=0.7)
    with pytest.raises(ValueError, match="sigma must rise"):
        GaussianBlur(sigma=(2.0, 1.0))
