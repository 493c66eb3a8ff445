"""Any recipe, made small enough to train for some steps in a second."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ssl_scale.recipe.recipe import Recipe

SIDE_PX, LOCAL_PX = 32, 16

# Part -> what is set in it. Parts that are not here keep their own size.
SMALL: dict[str, dict[str, Any]] = {
    "ImageField": {"size_px": SIDE_PX},
    "LabelField": {"num_classes": 10},
    "TextField": {"max_tokens": 16},
    "ImageView": {"size_px": SIDE_PX},
    "AugmentedImage": {"size_px": SIDE_PX},
    "ResNet": {"kind": "basic", "blocks": [1, 1], "stem_width": 8},
    "VisionTransformer": {
        "preset": None,
        "width": 16,
        "depth": 2,
        "num_heads": 2,
        "patch": 8,
        "size_px": SIDE_PX,
    },
    "TextTransformer": {
        "preset": None,
        "width": 16,
        "depth": 2,
        "num_heads": 2,
        "max_tokens": 16,
    },
    "MLPProjector": {"hidden": 16, "out": 8},
    "LinearProjector": {"out": 8},
    "MLPPredictor": {"hidden": 16},
    "PrototypeHead": {"prototypes": 12, "hidden": 16, "bottleneck": 8},
    "MAEDecoder": {"hidden": 16, "depth": 1, "num_heads": 2},
    "JEPAPredictor": {"hidden": 16, "depth": 1, "num_heads": 2},
    "MoCo": {"queue": 20},
    "NNCLR": {"support": 20},
    "Data2Vec": {"top": 2},
}
RUN = {
    "data.global_batch": 8,
    "data.num_workers": 0,
    "data.window": 16,
    "data.streams": 4,
    "train.epochs": None,
    "train.precision": "fp32",
    "train.log_every": 1,
    "train.validate_every": 0,
}


def shrunk(recipe: Recipe, steps: int) -> list[str]:
    """Overrides that make a recipe small."""
    settings = {**RUN, "train.steps": steps, **dict(_small_parts(recipe.resolved, ""))}
    largest = max((view["size_px"] for view in _crops(recipe)), default=0)
    for name, view in recipe.resolved.get("views", {}).items():
        if view.get("size_px", largest) < largest:
            settings[f"views.{name}.size_px"] = LOCAL_PX
    return [f"{path}={json.dumps(value)}" for path, value in settings.items()]


def _crops(recipe: Recipe) -> Iterator[Mapping[str, Any]]:
    views = recipe.resolved.get("views", {}).values()
    yield from (view for view in views if view["type"] == "AugmentedImage")


def _small_parts(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, Mapping):
        return
    for argument, value in SMALL.get(str(node.get("type")), {}).items():
        yield f"{path}.{argument}", value
    for name, inner in node.items():
        yield from _small_parts(inner, f"{path}.{name}" if path else name)
