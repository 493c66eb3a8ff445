"""scikit-learn's handwritten digits as raw files: 1,797 scans of 8x8 pixels, without a download.

A caption speaks of what the pixels show - weight of the stroke, slant, place - and, for some
images, of the class. Everything about an image is a function of its pixels and number.

| folder | images | files | what it is for |
|---|---|---|---|
| `train` | all but the test's | png, cls, json | self-supervision; probes draw labels |
| `train_labelled` | few a class, and those with a named class | png, cls | supervised losses |
| `train_captioned` | some | png, txt, json | contrast of image and text |
| `test` | held out | png, cls, txt | every caption names the class |

A class named in a caption counts as a label, so that training on labels alone knows as much about
the classes as training on labels and captions.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from ssl_scale.errors import DataError

from .example_files import write_files

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUM_CLASSES = len(NAMES)
NUM_TEST = 360

# Terciles of the ink in all scans, rounded; a slant of 0.07 is four degrees.
LIGHT_BELOW, BOLD_FROM = 295, 328
SLANTED_FROM = 0.07
# In pixels from the middle; about a third of the scans lie nearer.
PLACED_FROM = 0.3

NAMED_TEMPLATES = (
    "a handwritten {name}, {stroke}, {slant}, {place}",
    "the digit {name} drawn with {stroke}, {slant}, {place}",
    "{stroke}, {slant}, {place}: this is the number {name}",
    "a scan of {name}, written by hand: {slant}, {stroke}, {place}",
)
BARE_TEMPLATES = (
    "a handwritten digit, {stroke}, {slant}, {place}",
    "a digit drawn with {stroke}, {slant}, {place}",
    "{stroke}, {slant}, {place}: this is some number",
    "a scan of a digit, written by hand: {slant}, {stroke}, {place}",
)
PROMPTS = (
    "a handwritten {name}",
    "the digit {name}",
    "this is the number {name}",
    "a scan of {name}, written by hand",
)


@dataclass(frozen=True)
class Look:
    """What the pixels of a scan show."""

    stroke: str
    slant: str
    place: str


def describe(pixels: NDArray[np.float64]) -> Look:
    """Weight of the stroke from the ink, slant from second moments, place from the centre of mass.

    Args:
        pixels: 8x8, 0 (paper) to 16 (ink).
    """
    ink = float(pixels.sum())
    down, right = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    middle_y = float((pixels * down).sum()) / ink
    middle_x = float((pixels * right).sum()) / ink
    across = float((pixels * (right - middle_x) * (down - middle_y)).sum())
    along = float((pixels * (down - middle_y) ** 2).sum())
    lean = -across / along if along else 0.0  # rows count downwards, so a stroke like / has < 0
    weight = "light" if ink < LIGHT_BELOW else "bold" if ink >= BOLD_FROM else "medium"
    slant = (
        "leaning right"
        if lean >= SLANTED_FROM
        else "leaning left"
        if lean <= -SLANTED_FROM
        else "upright"
    )
    off_x = middle_x - (pixels.shape[1] - 1) / 2
    off_y = middle_y - (pixels.shape[0] - 1) / 2
    return Look(f"{weight} strokes", slant, _place(off_x, off_y))


def _place(off_x: float, off_y: float) -> str:
    if max(abs(off_x), abs(off_y)) < PLACED_FROM:
        return "centred"
    if abs(off_y) >= abs(off_x):
        return "towards the bottom" if off_y > 0 else "towards the top"
    return "towards the right" if off_x > 0 else "towards the left"


def caption(number: int, look: Look, name: str | None) -> str:
    """The caption of an image; without a name it leaves the class open."""
    templates = BARE_TEMPLATES if name is None else NAMED_TEMPLATES
    # By hash, not by remainder: the classes come in turn, and the template must not tell the class.
    choice = hashlib.sha256(f"caption {number}".encode()).digest()[0] % len(templates)
    return templates[choice].format(name=name, **asdict(look))


def encode_png(pixels: NDArray[np.float64]) -> bytes:
    """A greyscale PNG, 0 to 255."""
    grey = np.rint(pixels * (255 / 16)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Split:
    """Numbers of the images in each part; disjoint."""

    labelled: list[int]
    captioned: list[int]
    named: frozenset[int]
    bare: list[int]
    test: list[int]


def split(
    labels: NDArray[np.int64], labels_per_class: int, num_captioned: int, named_ratio: float
) -> Split:
    """Part the images, equally many of each class where the numbers allow.

    Args:
        labels: class of every image.
        labels_per_class: labelled images a class.
        num_captioned: images with a caption.
        named_ratio: share of those captions that name the class.

    Raises:
        DataError: there are not so many images.
    """
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(np.flatnonzero(labels == c)).tolist() for c in range(NUM_CLASSES)]
    shares = _share(num_captioned)
    named_shares = _share(round(num_captioned * named_ratio))
    parts = Split([], [], frozenset(), [], [])
    named: set[int] = set()
    for numbers, num_test, share, num_named in zip(
        shuffled, _share(NUM_TEST), shares, named_shares, strict=True
    ):
        left = len(numbers) - num_test
        if labels_per_class + share >= left:
            raise DataError(
                f"labelled and captioned images of a class must be fewer than {left}, but are "
                f"{labels_per_class} + {share}"
            )
        first, second = num_test + labels_per_class, num_test + labels_per_class + share
        parts.test.extend(numbers[:num_test])
        parts.labelled.extend(numbers[num_test:first])
        parts.captioned.extend(numbers[first:second])
        named.update(numbers[first : first + num_named])
        parts.bare.extend(numbers[second:])
    return Split(parts.labelled, parts.captioned, frozenset(named), parts.bare, parts.test)


def _share(total: int) -> list[int]:
    return [total // NUM_CLASSES + (c < total % NUM_CLASSES) for c in range(NUM_CLASSES)]


def make_digits(
    folder: Path, labels_per_class: int = 2, num_captioned: int = 150, named_ratio: float = 0.2
) -> dict[str, int]:
    """Write the folders of the module's table, and ``classes.json`` with names and prompts.

    Returns:
        Images in each folder.
    """
    data = load_digits()
    parts = split(data.target, labels_per_class, num_captioned, named_ratio)
    folders: dict[str, dict[str, bytes]] = {}

    def put(name: str, number: int, **contents: bytes) -> None:
        files = folders.setdefault(name, {})
        for extension, content in contents.items():
            files[f"digit-{number:04d}.{extension}"] = content

    for part, numbers in (
        ("labelled", parts.labelled),
        ("captioned", parts.captioned),
        ("bare", parts.bare),
        ("test", parts.test),
    ):
        for number in numbers:
            pixels, label = data.images[number], int(data.target[number])
            look = describe(pixels)
            png, cls = encode_png(pixels), f"{label}\n".encode()
            named = number in parts.named
            about: Mapping[str, object] = {"part": part, "named_class": named, **asdict(look)}
            record = (json.dumps(about) + "\n").encode()
            if part == "test":
                text = caption(number, look, NAMES[label])
                put("test", number, png=png, cls=cls, txt=text.encode())
                continue
            put("train", number, png=png, cls=cls, json=record)
            if part == "captioned":
                text = caption(number, look, NAMES[label] if named else None)
                put("train_captioned", number, png=png, txt=text.encode(), json=record)
            if part == "labelled" or named:
                put("train_labelled", number, png=png, cls=cls)
    write_files(folder, folders)
    classes = {"names": NAMES, "prompts": PROMPTS}
    write_files(folder, {"": {"classes.json": (json.dumps(classes, indent=1) + "\n").encode()}})
    return {name: sum(file.endswith(".png") for file in files) for name, files in folders.items()}
