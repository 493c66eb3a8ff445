"""Check a recipe: every fault at once, each with its line.

Exit code 2 means that the recipe or its data is wrong; 3 that the recipe is sound, but data that
it names is not bound to a path yet. With --build the parts are built too, which finds what only
constructors know (rules between two arguments), and how the parameters will move is printed.
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from ssl_scale.cli.options import add_overrides, read_recipe_of
from ssl_scale.errors import DataError, RecipeError, SslScaleError, UnboundDataError

if TYPE_CHECKING:
    from ssl_scale.recipe.data_plan import SourceSpec, ValidationSpec
    from ssl_scale.recipe.recipe import Recipe

EXAMPLES = """examples:
  ssl-scale check vision/simclr --data images=/data/cc12m
  ssl-scale check mine.yaml --set train.steps=1000 --build
  ssl-scale check mine.yaml --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name or file, or a run folder")
    add_overrides(parser)
    parser.add_argument("--build", action="store_true", help="also build the parts")
    parser.add_argument("--json", action="store_true", help="print the finding as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Check and say what was found; returns the exit code."""
    if not arguments.json:
        sys.stdout.write(_told(_check(arguments)))
        return 0
    try:
        finding = {"ok": True, "exit_code": 0, **_check(arguments)}
    except SslScaleError as error:
        finding = _failed(error)
    sys.stdout.write(json.dumps(finding) + "\n")
    return int(finding["exit_code"])


def _check(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a sound recipe amounts to."""
    recipe = read_recipe_of(arguments, arguments.recipe)
    samples = _open_sources(recipe)
    groups = _build(recipe) if arguments.build else []
    steps = recipe.num_steps(samples)
    return {
        "recipe": recipe.name,
        "fingerprint": recipe.fingerprint(),
        "steps": steps,
        "samples": steps * recipe.data.global_batch,
        "global_batch": recipe.data.global_batch,
        "sources": samples,
        "objectives": list(recipe.objectives),
        "groups": groups,
    }


def _open_sources(recipe: "Recipe") -> dict[str, int]:
    """Samples of every training source; shards and fields of all sources are looked for.

    Raises:
        DataError: something is missing.
        RecipeError: a field's constructor refuses its arguments.
    """
    from ssl_scale.data.lengths import Lengths
    from ssl_scale.data.source import Source

    try:
        fields = {name: spec.build(paths=recipe.paths) for name, spec in recipe.data.fields.items()}
    except ValueError as error:
        raise RecipeError(f"{recipe.path}: fields cannot be built: {error}") from error

    def open_source(path: str, source: "SourceSpec | ValidationSpec") -> int:
        try:
            read = {field: fields[field] for field in source.fields}
            opened = Source(path, str(source.path), read)
            lengths = getattr(source, "lengths", None)
            if recipe.data.needs_lengths and lengths is not None:
                Lengths(opened, lengths)
            return opened.dataset.num_samples
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    for name, held_out in recipe.data.validation.items():
        open_source(f"data.validation.{name}", held_out)
    return {
        name: open_source(f"data.sources.{name}", source)
        for name, source in recipe.data.sources.items()
    }


def _build(recipe: "Recipe") -> list[str]:
    """Build all parts, on the CPU; returns a table of how their parameters move.

    Raises:
        RecipeError: a constructor refuses its arguments, or a group of parameters is empty.
    """
    from ssl_scale.optim.groups import describe_groups, parameter_groups
    from ssl_scale.system.build import build_system

    try:
        optim = recipe.optim.build(global_batch=recipe.data.global_batch)
        groups = parameter_groups(build_system(recipe), optim)
    except ValueError as error:
        raise RecipeError(f"{recipe.path}: parts cannot be built: {error}") from error
    return describe_groups(groups).splitlines()


def _told(finding: dict[str, Any]) -> str:
    sources = ", ".join(f"{name} ({count:,})" for name, count in finding["sources"].items())
    groups = "".join(f"  {line}\n" for line in finding["groups"])
    return (
        f"{finding['recipe']} is sound (fingerprint {finding['fingerprint']})\n"
        f"  {finding['steps']:,} steps of {finding['global_batch']:,} samples: "
        f"{finding['samples']:,} samples\n"
        f"  objectives: {', '.join(finding['objectives'])}\n"
        f"  sources: {sources}\n{groups}"
    )


def _failed(error: SslScaleError) -> dict[str, Any]:
    from ssl_scale.recipe.faults import RecipeFaults

    faults = error.faults if isinstance(error, RecipeFaults) else ()
    return {
        "ok": False,
        "exit_code": error.exit_code,
        "error": str(error),
        "unbound": isinstance(error, UnboundDataError),
        "faults": [
            {
                "file": fault.place.file,
                "line": fault.place.line or None,
                "path": fault.path,
                "message": fault.message,
            }
            for fault in faults
        ],
    }
