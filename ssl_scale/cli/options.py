"""Options that several subcommands share, and how a recipe is read with them."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_scale.errors import RecipeError

if TYPE_CHECKING:
    from ssl_scale.recipe.recipe import Recipe


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Declare what changes a recipe from the command line."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=VALUE",
        help="override a value of the recipe, in YAML notation; may be repeated",
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="bind a data set that the recipe names; may be repeated",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="short for --set train.seed=N")


def overrides(arguments: argparse.Namespace) -> list[str]:
    """Overrides in the order in which they act."""
    seed = [] if arguments.seed is None else [f"train.seed={arguments.seed}"]
    return [*arguments.set, *seed]


def bindings(pairs: Sequence[str]) -> Mapping[str, str]:
    """``--data`` options as a mapping.

    Raises:
        RecipeError: one is not ``NAME=PATH``.
    """
    found = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise RecipeError(f"--data must read NAME=PATH, but is {pair!r}")
        found[name] = path
    return found


def read_recipe_of(
    arguments: argparse.Namespace, recipe: str | Path, require_data: bool = True
) -> "Recipe":
    """The recipe, with the command line's overrides and bindings."""
    from ssl_scale.recipe.reading import read_recipe

    return read_recipe(
        recipe, overrides(arguments), bindings(arguments.data), require_data=require_data
    )
