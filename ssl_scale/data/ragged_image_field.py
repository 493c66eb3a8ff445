"""Pictures that keep their own shape, for encoders that take any resolution.

Side by side they differ in height and width: the batch is ragged in both.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from ssl_scale.data.decoding import FieldDecoder, pad
from ssl_scale.data.jpeg import decode_jpeg, jpeg_size
from ssl_scale.data.pictures import FILTERS, Resize, from_pixels, opened, upright
from ssl_scale.part import Count
from ssl_scale.types import Ragged

# EXIF: turned by 90 degrees, as it is or mirrored.
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)


class RaggedImageField(FieldDecoder):
    """A picture, upright, in its own shape, in bytes; made smaller where it is too large.

    Args:
        extension: of the members.
        max_px: its longer side at most.
        multiple_px: both sides become a multiple of this, such as an encoder's patch: the nearest,
            but no side is shorter than it.
        channels: 1 for grey, 3 for RGB, 4 for RGBA.
        resize: the filter; all but ``nearest`` are free of aliasing.
        max_pixels: a picture that claims more is bad: it may be a decompression bomb.
    """

    def __init__(
        self,
        extension: str | Sequence[str],
        max_px: Count,
        multiple_px: Count = 1,
        channels: Literal[1, 3, 4] = 3,
        resize: Resize = "bilinear",
        max_pixels: Count = 64_000_000,
    ) -> None:
        super().__init__(extension)
        if max_px % multiple_px:
            raise ValueError(
                f"max_px must be a multiple of multiple_px, but is {max_px} with {multiple_px}"
            )
        self.max_px, self.multiple_px, self.channels = max_px, multiple_px, channels
        self.resize, self.max_pixels = resize, max_pixels

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a picture that has these in its file."""
        scale = min(1.0, self.max_px / max(height, width))
        tall, wide = (
            self.multiple_px * max(round(side * scale / self.multiple_px), 1)
            for side in (height, width)
        )
        return tall, wide

    def decode(self, member: bytes, extension: str) -> np.ndarray:
        """``[height, width, channels]`` uint8."""
        if (size := jpeg_size(member)) is not None:
            place = np.empty((*self.size_of(*size), self.channels), np.uint8)
            pixels = decode_jpeg(member, place, self.max_pixels)
            if pixels is place:
                return place
            if pixels is not None:
                image = from_pixels(pixels)
                del pixels  # see ImageField
                return self._resized(image, *size)
        with opened(member, self.max_pixels) as image:
            width, height = image.size
            # JPEG can decode at 1/2, 1/4 or 1/8 for less; never below what is asked.
            image.draft(None, self.size_of(height, width)[::-1])
            if image.getexif().get(_ORIENTATION, 1) in _TURNED:
                width, height = height, width
            return self._resized(upright(image, self.channels), height, width)

    def missing(self) -> np.ndarray:
        """No pixels."""
        return np.zeros((0, 0, self.channels), np.uint8)

    def collate(self, values: Sequence[np.ndarray]) -> Ragged:
        """``[batch, height, width, channels]``, padded with black; lengths ``[batch, 2]``."""
        return pad(values, axes=2)

    def _resized(self, image: Image.Image, height: int, width: int) -> np.ndarray:
        tall, wide = self.size_of(height, width)
        if image.size != (wide, tall):
            image = image.resize((wide, tall), FILTERS[self.resize])
        return np.array(image).reshape(tall, wide, self.channels)
