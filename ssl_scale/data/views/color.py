"""Changes of colour: each a formula on single pixels, or on a pixel and its image's mean."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_scale.data.views.pixel_operation import PerCrop, PixelOperation
from ssl_scale.part import NonNegative, Probability
from ssl_scale.rng import Draw

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in PIL, torchvision and the papers' pipelines


class ColorJitter(PixelOperation):
    """Random brightness, contrast, saturation and hue, in this order.

    Differs: torchvision draws the order. Images that are not of three channels have no saturation
    or hue, and keep theirs.

    Args:
        brightness: factors are drawn from [1 - b, 1 + b], and not below 0.
        contrast: the same, about the image's mean luma.
        saturation: the same, about each pixel's luma.
        hue: largest turn of the colour circle to either side; 0.5 is half of it.
        probability: of being applied; one number, or one for each crop.
    """

    def __init__(
        self,
        brightness: NonNegative = 0.4,
        contrast: NonNegative = 0.4,
        saturation: NonNegative = 0.4,
        hue: NonNegative = 0.1,
        probability: PerCrop = 0.8,
    ) -> None:
        super().__init__(probability)
        if hue > 0.5:
            raise ValueError(f"hue must be in [0, 0.5], but is {hue}")
        self.brightness, self.contrast = brightness, contrast
        self.saturation, self.hue = saturation, hue

    def change(
        self, pixels: Float[Tensor, "n channels height width"], draw: Draw
    ) -> Float[Tensor, "n channels height width"]:
        """Jitter all crops."""
        colored = pixels.shape[1] == 3
        if self.brightness:
            pixels = adjust_brightness(pixels, _factor(draw, "brightness", self.brightness))
        if self.contrast:
            pixels = adjust_contrast(pixels, _factor(draw, "contrast", self.contrast))
        if self.saturation and colored:
            pixels = adjust_saturation(pixels, _factor(draw, "saturation", self.saturation))
        if self.hue and colored:
            pixels = turn_hue(pixels, draw.between("hue", -self.hue, self.hue))
        return pixels


class Grayscale(PixelOperation):
    """Luma in all three channels; images of other channels stay as they are.

    Args:
        probability: of being applied; one number, or one for each crop.
    """

    def __init__(self, probability: PerCrop = 0.2) -> None:
        super().__init__(probability)

    def change(
        self, pixels: Float[Tensor, "n channels height width"], draw: Draw
    ) -> Float[Tensor, "n channels height width"]:
        """Grey crops."""
        return luma(pixels).expand_as(pixels) if pixels.shape[1] == 3 else pixels


class Solarize(PixelOperation):
    """Invert what is bright.

    Args:
        threshold: brightness from which on pixels are inverted.
        probability: of being applied; one number, or one for each crop.
    """

    def __init__(self, threshold: Probability = 0.5, probability: PerCrop = 0.2) -> None:
        super().__init__(probability)
        self.threshold = threshold

    def change(
        self, pixels: Float[Tensor, "n channels height width"], draw: Draw
    ) -> Float[Tensor, "n channels height width"]:
        """Solarized crops."""
        return torch.where(pixels >= self.threshold, 1 - pixels, pixels)


def luma(
    pixels: Float[Tensor, "n channels height width"],
) -> Float[Tensor, "n 1 height width"]:
    """Brightness as the eye weighs the colours; the mean of other channels than three."""
    if pixels.shape[1] != 3:
        return pixels.mean(1, keepdim=True)
    red, green, blue = pixels[:, :1], pixels[:, 1:2], pixels[:, 2:]
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def adjust_brightness(
    pixels: Float[Tensor, "n channels height width"], factor: Float[Tensor, " n"]
) -> Float[Tensor, "n channels height width"]:
    """Scale towards black."""
    return (pixels * factor[:, None, None, None]).clamp(0, 1)


def adjust_contrast(
    pixels: Float[Tensor, "n channels height width"], factor: Float[Tensor, " n"]
) -> Float[Tensor, "n channels height width"]:
    """Scale towards the image's mean luma."""
    # In float64, since the order of a sum over one image depends on how many images there are.
    middle = luma(pixels).mean((1, 2, 3), keepdim=True, dtype=torch.float64).to(pixels.dtype)
    return (middle + factor[:, None, None, None] * (pixels - middle)).clamp(0, 1)


def adjust_saturation(
    pixels: Float[Tensor, "n 3 height width"], factor: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 height width"]:
    """Scale towards each pixel's luma."""
    grey = luma(pixels)
    return (grey + factor[:, None, None, None] * (pixels - grey)).clamp(0, 1)


def turn_hue(
    pixels: Float[Tensor, "n 3 height width"], turns: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 height width"]:
    """Turn the colour circle; value and saturation in the sense of HSV stay.

    With value V, chroma C and hue h in sixths of the circle, channel n of the result is
    ``V - C * clamp(min(k, 4 - k), 0, 1)`` with ``k = (n + h) mod 6`` and n = 5, 3, 1 for red, green
    and blue.
    """
    red, green, blue = pixels[:, :1], pixels[:, 1:2], pixels[:, 2:]
    value = pixels.amax(1, keepdim=True)
    chroma = value - pixels.amin(1, keepdim=True)
    # Grey pixels have no hue; any denominator but 0 will do, since their chroma multiplies it.
    chroma_or_one = torch.where(chroma == 0, 1, chroma)
    hue = torch.where(
        value == red,
        (green - blue) / chroma_or_one,
        torch.where(
            value == green, (blue - red) / chroma_or_one + 2, (red - green) / chroma_or_one + 4
        ),
    )
    hue = hue + 6 * turns[:, None, None, None]
    phase = torch.cat([(n + hue) % 6 for n in (5, 3, 1)], dim=1)
    return value - chroma * torch.minimum(phase, 4 - phase).clamp(0, 1)


def _factor(draw: Draw, name: str, amount: float) -> Float[Tensor, " n"]:
    return draw.between(name, max(0.0, 1 - amount), 1 + amount)
