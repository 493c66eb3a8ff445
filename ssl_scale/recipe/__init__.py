"""Reading recipes: files, ``extends``, overrides, checks; what comes out is data, nothing built.

`read_recipe` and `Recipe` are loaded on first use: they import torch, while finding and listing
recipes does not.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_scale.recipe.finding import find_recipe, list_recipes
    from ssl_scale.recipe.reading import read_recipe
    from ssl_scale.recipe.recipe import Recipe

__all__ = ["Recipe", "find_recipe", "list_recipes", "read_recipe"]

_HOMES = {
    "Recipe": "recipe",
    "find_recipe": "finding",
    "list_recipes": "finding",
    "read_recipe": "reading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
