"""What fields of pictures share: opening strangers' files with Pillow, fitting into a square."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ssl_scale.data.undecodable import UndecodableError

Resize: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Fit: TypeAlias = Literal["crop", "squash"]

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Not every format that Pillow knows: its reader of PostScript starts another program.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "AVIF", "JPEG2000")


@contextmanager
def opened(member: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """A picture whose header was read; whatever goes wrong inside is the sample's fault.

    Raises:
        UndecodableError: it is no picture, claims more than `max_pixels`, or does not decode.
    """
    try:
        with Image.open(io.BytesIO(member), formats=_FORMATS) as image:
            check_pixels(image.width, image.height, max_pixels)
            yield image
    except (UndecodableError, MemoryError):
        raise
    except UnidentifiedImageError:  # its own words are the address of our buffer
        formats = ", ".join(_FORMATS)
        raise UndecodableError(
            f"must be a picture, but does not decode (it is none of {formats})"
        ) from None
    except Exception as error:  # noqa: BLE001 - the formats' parsers raise all sorts of things
        reason = str(error) or type(error).__name__
        raise UndecodableError(f"must be a picture, but does not decode ({reason})") from error


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuse what may be a decompression bomb."""
    if width * height > max_pixels:
        raise UndecodableError(
            f"must have at most {max_pixels} pixels, but claims {width} x {height}"
        )


def upright(image: Image.Image, channels: int) -> Image.Image:
    """The decoded picture as EXIF says it is held, 8 bits a channel, in the channels asked for."""
    ImageOps.exif_transpose(image, in_place=True)
    image = _eight_bits(image)
    return image if image.mode == MODES[channels] else image.convert(MODES[channels])


def from_pixels(pixels: np.ndarray) -> Image.Image:
    """A picture of bytes ``[height, width, channels]``; grey has one channel."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def squared(image: Image.Image, size_px: int, resize: Resize, fit: Fit) -> Image.Image:
    """A picture with this height and width: its middle square, or squashed."""
    target = (size_px, size_px)
    if image.size == target:
        return image
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side) if fit == "crop" else None
    return image.resize(target, FILTERS[resize], box=box)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow cuts 16-bit values off at 255 when it converts them; scale them instead."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise UndecodableError(f"must have 8 or 16 bits a channel, but has mode {image.mode}")
    return image
