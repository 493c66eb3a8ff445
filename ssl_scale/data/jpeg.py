"""JPEG files into memory that is already there, by libjpeg-turbo without Pillow's detour.

What is out of the ordinary (turned by EXIF, CMYK, not quite sound) is left to Pillow, which knows
more cases and words the errors.
"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

_START = b"\xff\xd8\xff"
_APP1, _ORIENTATION = 0xE1, 0x0112
# Segments that come first: what applications put there, and comments.
_LEADING = frozenset([*range(0xE0, 0xF0), 0xFE])
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
    if member[:3] != _START or channels not in _COLORS or not _is_upright(member):
        return None
    try:
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


def _is_upright(member: bytes) -> bool:
    """Whether no EXIF entry says that the picture is turned; it stands among the first segments."""
    place = 2
    while place + 10 < len(member) and (kind := member[place + 1]) in _LEADING:
        end = place + 2 + int.from_bytes(member[place + 2 : place + 4], "big")
        if kind == _APP1 and member[place + 4 : place + 10] == b"Exif\0\0":
            exif = Image.Exif()
            try:
                exif.load(member[place + 4 : end])
                return bool(exif.get(_ORIENTATION, 1) == 1)
            except Exception:  # noqa: BLE001 - broken EXIF raises all sorts of things
                return False
        place = end
    return True
