"""Pretrain by a recipe, or continue a run from its newest checkpoint.

A run folder that was trained before is continued by itself. For several processes, start it with
ssl-launch.
"""

import argparse
from pathlib import Path

from ssl_scale.cli.options import add_overrides, read_recipe_of
from ssl_scale.errors import RecipeError

EXAMPLES = """examples:
  ssl-scale fit vision/simclr --data images=/data/cc12m
  ssl-scale fit mine.yaml --name first --max-steps 10 --set train.log_every=1
  ssl-scale fit runs/first                   continue a run by its own recipe
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name or file, or a run folder")
    parser.add_argument("--name", help="name of the run; default: the recipe's")
    parser.add_argument("--run-folder", type=Path, metavar="F", help="default: runs/NAME")
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="stop after N steps; schedules do not shrink"
    )
    parser.add_argument(
        "--no-resume", action="store_true", help="start anew, whatever the run folder holds"
    )
    add_overrides(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    if arguments.max_steps is not None and arguments.max_steps < 1:
        raise RecipeError(f"--max-steps must be at least 1, but is {arguments.max_steps}")
    # The recipe is read first: a fault in it is told before Lightning has been imported.
    recipe = read_recipe_of(arguments, arguments.recipe)
    folder = run_folder(arguments, recipe.name)

    from ssl_scale.train.fit import fit

    fit(recipe, folder, max_steps=arguments.max_steps, resume=not arguments.no_resume)
    return 0


def run_folder(arguments: argparse.Namespace, recipe_name: str) -> Path:
    """Where the run keeps its files.

    Raises:
        RecipeError: the name cannot be that of a folder.
    """
    if arguments.run_folder is not None:
        return Path(arguments.run_folder)
    if arguments.name is None and (Path(arguments.recipe) / "recipe.yaml").is_file():
        return Path(arguments.recipe)
    name = arguments.name if arguments.name is not None else recipe_name.rpartition("/")[2]
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise RecipeError(f"the run's name must be the name of one folder, but is {name!r}")
    return Path("runs") / name
