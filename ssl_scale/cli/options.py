"""Options that several subcommands share, and how a recipe is read with them."""

import argparse
import json
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


def add_variants(parser: argparse.ArgumentParser) -> None:
    """Declare a way to ask about many variants of a recipe at once."""
    parser.add_argument(
        "--variants",
        type=Path,
        metavar="FILE",
        help="a JSON list with one list of overrides for each variant, which are looked at in turn",
    )


def variants(arguments: argparse.Namespace) -> list[argparse.Namespace]:
    """The command line once for each variant, its overrides after those of ``--set``.

    Raises:
        RecipeError: the file is not what it must be.
    """
    try:
        told = json.loads(arguments.variants.read_bytes())
    except (OSError, ValueError) as error:
        raise RecipeError(f"{arguments.variants}: must be JSON, but is not: {error}") from error
    if not isinstance(told, list) or not all(_are_words(words) for words in told):
        raise RecipeError(f"{arguments.variants}: must be a list of lists of overrides, but is not")
    given = vars(arguments)
    return [argparse.Namespace(**{**given, "set": [*arguments.set, *words]}) for words in told]


def _are_words(found: object) -> bool:
    return isinstance(found, list) and all(isinstance(word, str) for word in found)


def overrides(arguments: argparse.Namespace) -> list[str]:
    """Overrides in the order in which they act."""
    seed = [] if arguments.seed is None else [f"train.seed={arguments.seed}"]
    return [*arguments.set, *seed]


def bindings(pairs: Sequence[str], option: str = "--data") -> Mapping[str, str]:
    """``--data`` options, or others alike, as a mapping.

    Raises:
        RecipeError: one is not ``NAME=PATH``.
    """
    found = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise RecipeError(f"{option} must read NAME=PATH, but is {pair!r}")
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
