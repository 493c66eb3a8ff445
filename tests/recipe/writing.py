"""Writes recipes for the tests; what a test is about stands in the test."""

import textwrap
from pathlib import Path

from ssl_scale.recipe.faults import RecipeFaults
from ssl_scale.recipe.reading import read_recipe

SOUND = """\
data:
  global_batch: 12
  fields:
    image: {type: ImageField, extension: png, size_px: 8}
    label: {type: LabelField, extension: cls, num_classes: 10}
  sources:
    digits: {data: digits, fields: [image, label], feeds: [all]}
views:
  image: {type: ImageView, field: image}
encoders:
  image: {type: "tests.recipe.parts:TinyEncoder"}
objectives:
  all: {type: "tests.recipe.parts:Everything", encoder: image}
optim: {type: AdamW, lr: 0.1}
train: {steps: 10}
"""


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    """A recipe file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def faults_of(path: Path, *overrides: str, **bindings: str) -> list[str]:
    """The faults of a recipe, as ``line: path: message``."""
    try:
        read_recipe(path, overrides, bindings, require_data=False)
    except RecipeFaults as error:
        return [
            f"{fault.place.line or fault.place}: {fault.path}: {fault.message}"
            for fault in error.faults
        ]
    return []


def faults_with(folder: Path, arguments: str) -> list[str]:
    """The faults of a sound recipe whose objective is given these arguments."""
    text = SOUND.replace(
        'Everything", encoder: image}', f'Everything", encoder: image, {arguments}}}'
    )
    return faults_of(write(folder, text))
