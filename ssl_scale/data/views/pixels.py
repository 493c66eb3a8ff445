"""Pixels between the decoder and the encoder: bytes to fractions, resizing, normalising."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def to_fractions(images: Tensor) -> Float[Tensor, "batch channels height width"]:
    """Bytes to fractions of full brightness, in [0, 1].

    Raises:
        ValueError: the images are not bytes ``[batch, channels, height, width]``.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            "images must be uint8 [batch, channels, height, width], "
            f"but are {images.dtype} {list(images.shape)}"
        )
    # Decoders leave the channels last; what follows is written for, and tested with, planes.
    return images.to(torch.float32, memory_format=torch.contiguous_format) / 255


def normalize(
    pixels: Float[Tensor, "n channels height width"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[Tensor, "n channels height width"]:
    """Subtract the mean and divide by the deviation: one number, or one a channel.

    Raises:
        ValueError: neither one number nor one a channel is given.
    """
    channels = pixels.shape[1]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ValueError(
                f"{name} must hold 1 or {channels} numbers (one a channel), but holds {len(values)}"
            )
    return (pixels - _per_channel(mean, pixels)) / _per_channel(std, pixels)


def _per_channel(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]


def fit_square(
    pixels: Float[Tensor, "n channels height width"], size_px: int
) -> Float[Tensor, "n channels size size"]:
    """Resize so that the shorter side has `size_px`, then cut out the centre."""
    height, width = pixels.shape[-2:]
    if (height, width) == (size_px, size_px):
        return pixels
    scale = size_px / min(height, width)
    tall, wide = max(round(height * scale), size_px), max(round(width * scale), size_px)
    # Bicubic overshoots at edges; pixels stay fractions.
    pixels = F.interpolate(pixels, (tall, wide), mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (tall - size_px) // 2, (wide - size_px) // 2
    return pixels[..., top : top + size_px, left : left + size_px]
