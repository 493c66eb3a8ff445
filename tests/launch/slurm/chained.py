"""Three recipes of which each starts from parts of the ones before."""

from pathlib import Path

from tests.train.tiny import make_recipe

SECOND = """\
extends: tiny.yaml
data: {sources: {more: {data: extra, fields: [image], feeds: [mae], weight: 1}}}
init_from: [{run: previous, parts: [encoders.image, objectives.mae]}]
train: {seed: 5}
paths: {extra: FOLDER/pictures}
"""
THIRD = """\
extends: tiny.yaml
init_from:
  - {run: tiny, parts: [encoders.text], teacher: ema, partial: true}
  - {run: previous, parts: [encoders.image]}
train: {seed: 6}
"""


def chain_recipes(folder: Path) -> list[Path]:
    """Write the recipes and their data; returns them in their order."""
    first = make_recipe(folder)
    second, third = folder / "second.yaml", folder / "third.yaml"
    second.write_text(SECOND.replace("FOLDER", str(folder)))
    third.write_text(THIRD)
    return [first, second, third]
