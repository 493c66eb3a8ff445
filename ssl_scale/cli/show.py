"""Print a recipe with everything it extends and overrides, merged; or list the shipped ones."""

import argparse
import json
import sys

from ssl_scale.cli.options import add_overrides, overrides, read_recipe_of

EXAMPLES = """examples:
  ssl-scale show                             names of all shipped recipes
  ssl-scale show vision/simclr
  ssl-scale show vision/mae --roles          what it wants bound, and what for
  ssl-scale show vision/simclr --set encoders.image.preset=large > mine.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE", help="a recipe's name or file; none lists them"
    )
    add_overrides(parser)
    parser.add_argument(
        "--roles",
        action="store_true",
        help="print the roles it names, and the arguments that name them, as one JSON object",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print; returns the exit code."""
    if arguments.recipe is None:
        from ssl_scale.recipe.finding import list_recipes

        sys.stdout.write("".join(f"{name}\n" for name in list_recipes()))
        return 0
    if arguments.roles:
        from ssl_scale.recipe.reading import read_roles

        found = read_roles(arguments.recipe, overrides(arguments))
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    sys.stdout.write(read_recipe_of(arguments, arguments.recipe, require_data=False).to_yaml())
    return 0
