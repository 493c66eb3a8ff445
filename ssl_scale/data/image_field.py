"""Pictures: from a file's bytes to ``[channels, size, size]`` bytes.

Everything random (crops, colour) happens later, on the device (`ssl_scale.data.views`); here a
picture only gets the size that batches need.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from ssl_scale.data.decoding import FixedField
from ssl_scale.data.jpeg import decode_jpeg
from ssl_scale.data.pictures import Fit, Resize, from_pixels, opened, squared, upright
from ssl_scale.part import Count


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
        resize: Resize = "bilinear",
        fit: Fit = "crop",
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
            place[...] = self._decode(member).reshape(self.shape)
            return
        image = from_pixels(pixels)
        # Held on to while resizing, it makes the heap grow and shrink for every picture: hundreds
        # of page faults, half as slow again.
        del pixels
        place[...] = self._squared(image).reshape(self.shape)

    def _decode(self, member: bytes) -> np.ndarray:
        with opened(member, self.max_pixels) as image:
            # JPEG can decode at 1/2, 1/4 or 1/8 for less; never below what is asked.
            image.draft(None, (self.size_px, self.size_px))
            return self._squared(upright(image, self.channels))

    def _squared(self, image: Image.Image) -> np.ndarray:
        return np.asarray(squared(image, self.size_px, self.resize, self.fit))
