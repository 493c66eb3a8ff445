"""JPEG files into memory that is already there, by libjpeg-turbo without Pillow's detour.

What is out of the ordinary (turned by EXIF, CMYK, not quite sound) is left to Pillow, which knows
more cases and words the errors.
"""

import struct
from functools import cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

_START = b"\xff\xd8\xff"
_APP1, _ORIENTATION = 0xE1, 0x0112
# Segments that come first: what applications put there, and comments.
_LEADING = frozenset([*range(0xE0, 0xF0), 0xFE])
# Nearly all files have their size within so many bytes after these.
_SOON = 1 << 10
_COLORS = {1: "GRAY", 3: "RGB"}
_SPACES = ("Gray", "YCbCr", "RGB")


def decode_jpeg(
    member: bytes, place: NDArray[np.uint8], max_pixels: int
) -> NDArray[np.uint8] | None:
    """Decode a picture, into `place` if it has that size.

    Args:
        member: the file.
        place: ``[height, width, channels]``.
        max_pixels: of a picture that is decoded.

    Returns:
        `place`; or, if the size is another, the pixels of the whole, at 1/2 to 1/8 of its size if
        that still covers `place`; or None if this is nothing for us.
    """
    height, width, channels = place.shape
    if member[:3] != _START or channels not in _COLORS or (end := _leading(member)) is None:
        return None
    try:
        # Asking libjpeg for the size takes longer than looking for it, and decoding tells.
        is_likely = height * width <= max_pixels and (
            member.find(_frame(height, width), end, end + _SOON) > 0
        )
        if is_likely:
            found = simplejpeg.decode_jpeg(member, _COLORS[channels], buffer=place)
            if found.shape == place.shape:
                return place
        full_height, full_width, space, _ = simplejpeg.decode_jpeg_header(member)
        if space not in _SPACES or full_height * full_width > max_pixels:
            return None
        if (full_height, full_width) == (height, width):
            simplejpeg.decode_jpeg(member, _COLORS[channels], buffer=place)
            return place
        # Factors below 2 are slower than decoding all, and blur.
        smaller: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            member, _COLORS[channels], min_height=height, min_width=width, min_factor=2
        )
        return smaller
    except ValueError:
        return None


def jpeg_size(member: bytes) -> tuple[int, int] | None:
    """Height and width as a JPEG file claims them; None if it is none."""
    if member[:3] != _START:
        return None
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(member)
    except ValueError:
        return None
    return (height, width) if height and width else None


@cache
def _frame(height: int, width: int) -> bytes:
    """The beginning of a segment that says: baseline JPEG, 8 bits, this size, three components."""
    return struct.pack(">2BHBHHB", 0xFF, 0xC0, 17, 8, height, width, 3)


def _leading(member: bytes) -> int | None:
    """Where the leading segments end; None if EXIF, one of them, says that it is turned."""
    place = 2
    while place + 10 < len(member) and (kind := member[place + 1]) in _LEADING:
        end = place + 2 + int.from_bytes(member[place + 2 : place + 4], "big")
        if kind == _APP1 and member[place + 4 : place + 10] == b"Exif\0\0":
            exif = Image.Exif()
            try:
                exif.load(member[place + 4 : end])
                if exif.get(_ORIENTATION, 1) != 1:
                    return None
            except Exception:  # noqa: BLE001 - broken EXIF raises all sorts of things
                return None
        place = end
    return place
