"""Pictures: from a file's bytes to ``[channels, size, size]`` bytes.

Everything random (crops, colour) happens later, on the device (`ssl_scale.data.views`); here a
picture only gets the size that batches need.
"""

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ssl_scale.data.decoding import FixedField, UndecodableError
from ssl_scale.data.jpeg import decode_jpeg
from ssl_scale.part import Count

# Not every format that Pillow knows: its reader of PostScript starts another program.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "AVIF", "JPEG2000")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class ImageField(FixedField):
    """A picture, upright (EXIF orientation is applied), square, in bytes.

    Args:
        extension: of the members.
        size_px: height and width.
        channels: 1 for grey, 3 for RGB, 4 for RGBA.
        resize: the filter; all but ``nearest`` are free of aliasing.
        fit: ``crop`` keeps the shape and takes the middle square, ``squash`` takes all.
        max_pixels: a picture that claims more is bad: it may be a decompression bomb.
    """

    def __init__(
        self,
        extension: str | Sequence[str],
        size_px: Count,
        channels: Literal[1, 3, 4] = 3,
        resize: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear",
        fit: Literal["crop", "squash"] = "crop",
        max_pixels: Count = 64_000_000,
    ) -> None:
        super().__init__(extension, (size_px, size_px, channels), np.uint8)
        self.size_px, self.channels, self.fit = size_px, channels, fit
        self.resize, self.max_pixels = resize, max_pixels

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """``[..., channels, size_px, size_px]``."""
        return values.swapaxes(-1, -2).swapaxes(-2, -3)

    def decode_into(self, place: np.ndarray, member: bytes, extension: str) -> None:
        """Fill ``[size_px, size_px, channels]`` uint8."""
        pixels = decode_jpeg(member, place, self.max_pixels)
        if pixels is place:
            return
        if pixels is None:
            pixels = self._decode(member)
        else:
            image = Image.fromarray(pixels[..., 0] if self.channels == 1 else pixels)
            pixels = np.asarray(self._squared(image))
        place[...] = pixels.reshape(self.shape)

    def _decode(self, member: bytes) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(member), formats=_FORMATS) as image:
                if image.width * image.height > self.max_pixels:
                    raise UndecodableError(
                        f"must have at most {self.max_pixels} pixels, but claims {image.width} x "
                        f"{image.height}"
                    )
                # JPEG can decode at 1/2, 1/4 or 1/8 for less; never below what is asked.
                image.draft(None, (self.size_px, self.size_px))
                ImageOps.exif_transpose(image, in_place=True)
                return np.asarray(self._squared(_eight_bits(image)))
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

    def _squared(self, image: Image.Image) -> Image.Image:
        if image.mode != _MODES[self.channels]:
            image = image.convert(_MODES[self.channels])
        target = (self.size_px, self.size_px)
        if image.size == target:
            return image
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side) if self.fit == "crop" else None
        return image.resize(target, _FILTERS[self.resize], box=box)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow cuts 16-bit values off at 255 when it converts them; scale them instead."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise UndecodableError(f"must have 8 or 16 bits a channel, but has mode {image.mode}")
    return image
