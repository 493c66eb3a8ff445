"""What a sample's bytes tell, and whether they are what their extension says.

Bytes are looked at, never changed. What is found here becomes columns of the manifest.
"""

import io
import json
import warnings
from collections.abc import Mapping
from enum import StrEnum

from PIL import Image, UnidentifiedImageError

from .raw import Unfit

IMAGES = frozenset({"png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm"})
# A list, since Pillow would run Ghostscript on whatever looks like PostScript.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
COLUMNS = ("width", "height", "label", "text_chars")


class Check(StrEnum):
    """How closely samples are looked at."""

    NONE = "none"
    HEADER = "header"
    DECODE = "decode"


def examine(members: Mapping[str, bytes], check: Check) -> dict[str, int]:
    """Look at a sample's members.

    Args:
        members: bytes by extension.
        check: ``none`` takes them as they are; ``header`` reads texts, labels, JSON and the
            headers of images; ``decode`` decodes images too.

    Returns:
        Those of `COLUMNS` that the sample has.

    Raises:
        Unfit: a member is not what its extension says.
    """
    facts: dict[str, int] = {}
    if check is Check.NONE:
        return facts
    for extension, content in members.items():
        if not content:
            raise Unfit(f".{extension} must have content, but is empty")
        kind = extension.rpartition(".")[2]
        if kind in IMAGES:
            width, height = _look_at_image(extension, content, check)
            facts.setdefault("width", width)
            facts.setdefault("height", height)
        elif kind == "txt":
            facts.setdefault("text_chars", len(_read_text(extension, content)))
        elif kind == "cls":
            facts.setdefault("label", _read_label(extension, content))
        elif kind == "json":
            _read_json(extension, content)
    return facts


def _look_at_image(extension: str, content: bytes, check: Check) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                if check is Check.DECODE:
                    image.load()
                return image.size
    except UnidentifiedImageError:
        raise Unfit(f".{extension} must be an image, but is of no known format") from None
    except Exception as error:  # decoders raise whatever broken bytes lead them to
        raise Unfit(f".{extension} must be an image that decodes, but does not: {error}") from None


def _read_text(extension: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unfit(f".{extension} must be UTF-8, but is not: {error}") from None


def _read_label(extension: str, content: bytes) -> int:
    text = content.strip()
    if not text.isdigit() or len(text) > 18:
        raise Unfit(f".{extension} must be a whole number from 0, but is {content[:40]!r}")
    return int(text)


def _read_json(extension: str, content: bytes) -> None:
    try:
        json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unfit(f".{extension} must be JSON, but is not: {error}") from None
