"""Check a recipe: every fault at once, each with its line.

Exit code 2 means that the recipe or its data is wrong; 3 that the recipe is sound, but data that
it names is not bound to a path yet. With --build the parts are built too, which finds what only
constructors know (rules between two arguments), and how the parameters will move is printed.
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from ssl_scale.cli.options import add_overrides, add_variants, bindings, read_recipe_of, variants
from ssl_scale.errors import DataError, RecipeError, SslScaleError, UnboundDataError

if TYPE_CHECKING:
    from ssl_scale.data.index import Dataset
    from ssl_scale.recipe.data_plan import SourceSpec, ValidationSpec
    from ssl_scale.recipe.recipe import Recipe

EXAMPLES = """examples:
  ssl-scale check vision/simclr --data images=/data/cc12m
  ssl-scale check mine.yaml --set train.steps=1000 --build
  ssl-scale check mine.yaml --json
  ssl-scale check second.yaml --data first=runs/first --run-of first=first.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name or file, or a run folder")
    add_overrides(parser)
    parser.add_argument("--build", action="store_true", help="also build the parts")
    parser.add_argument(
        "--run-of",
        action="append",
        default=[],
        metavar="ROLE=RECIPE",
        help="the role will be the run of this recipe, which need not have begun: the parts that "
        "start from it (init_from) are compared by name and shape; may be repeated",
    )
    add_variants(parser)
    parser.add_argument("--json", action="store_true", help="print the finding as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Check and say what was found; returns the exit code."""
    if not arguments.json:
        for each in _each(arguments):
            sys.stdout.write(_told(_check_one(each, arguments)))
        return 0
    try:
        found = [_check_one(each, arguments) for each in _each(arguments)]
        told = found[0] if arguments.variants is None else {"variants": found}
        finding = {"ok": True, "exit_code": 0, **told}
    except SslScaleError as error:
        finding = _failed(error)
    sys.stdout.write(json.dumps(finding) + "\n")
    return int(finding["exit_code"])


def _each(arguments: argparse.Namespace) -> list[argparse.Namespace]:
    return [arguments] if arguments.variants is None else variants(arguments)


def _check_one(variant: argparse.Namespace, arguments: argparse.Namespace) -> dict[str, Any]:
    """What one variant amounts to; errors say which it is."""
    try:
        return _check(variant)
    except SslScaleError as error:
        own = variant.set[len(arguments.set) :]
        if own:
            error.args = (f"with {', '.join(own)}: {error}",)
        raise


def _check(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a sound recipe amounts to."""
    from ssl_scale.recipe.remote_cost import remote_costs

    recipe = read_recipe_of(arguments, arguments.recipe)
    opened = _open_sources(recipe)
    samples = {name: opened[f"data.sources.{name}"].num_samples for name in recipe.data.sources}
    groups = _build(recipe) if arguments.build else []
    _check_runs_to_come(arguments, recipe)
    steps = recipe.num_steps(samples)
    return {
        "recipe": recipe.name,
        "fingerprint": recipe.fingerprint(),
        "steps": steps,
        "samples": steps * recipe.data.global_batch,
        "global_batch": recipe.data.global_batch,
        "sources": samples,
        "remote": remote_costs(opened.values(), recipe.data.streams),
        "objectives": list(recipe.objectives),
        "groups": groups,
        "resolved": recipe.to_yaml(),
    }


def _open_sources(recipe: "Recipe") -> dict[str, "Dataset"]:
    """The data set of every source, by its path in the recipe; shards and fields are looked for.

    Raises:
        DataError: something is missing.
        RecipeError: a field's constructor refuses its arguments.
    """
    from ssl_scale.data.index import check_shards
    from ssl_scale.data.lengths import Lengths
    from ssl_scale.data.source import Source

    try:
        fields = {name: spec.build(paths=recipe.paths) for name, spec in recipe.data.fields.items()}
    except ValueError as error:
        raise RecipeError(f"{recipe.path}: fields cannot be built: {error}") from error

    cache = recipe.data.cache.cache()

    def open_source(path: str, source: "SourceSpec | ValidationSpec") -> "Dataset":
        try:
            read = {field: fields[field] for field in source.fields}
            opened = Source(path, str(source.path), read, cache=cache)
            lengths = getattr(source, "lengths", None)
            if recipe.data.needs_lengths and lengths is not None:
                Lengths(opened, lengths)
            check_shards(opened.dataset)
            return opened.dataset
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    sources: dict[str, SourceSpec | ValidationSpec] = {
        **{f"data.validation.{name}": each for name, each in recipe.data.validation.items()},
        **{f"data.sources.{name}": each for name, each in recipe.data.sources.items()},
    }
    return {path: open_source(path, source) for path, source in sources.items()}


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


def _check_runs_to_come(arguments: argparse.Namespace, recipe: "Recipe") -> None:
    """Compare parts with the recipes of the runs that they will start from.

    Raises:
        SslScaleError: a part will not be there, or not fit.
    """
    if not arguments.run_of:
        return
    from ssl_scale.plan.building import build_on_meta
    from ssl_scale.recipe.reading import read_recipe
    from ssl_scale.system.promised import check_promised

    promised = {}
    for role, path in bindings(arguments.run_of, "--run-of").items():
        if role not in recipe.paths:
            raise RecipeError(f"--run-of {role} must be a role that is bound, but is not")
        other = read_recipe(path, require_data=False)
        promised[recipe.paths[role]] = (build_on_meta(other), other.path)
    check_promised(build_on_meta(recipe), recipe.init_from, promised)


def _told(finding: dict[str, Any]) -> str:
    sources = ", ".join(f"{name} ({count:,})" for name, count in finding["sources"].items())
    remote = "".join(f"  {line}\n" for line in finding["remote"])
    groups = "".join(f"  {line}\n" for line in finding["groups"])
    return (
        f"{finding['recipe']} is sound (fingerprint {finding['fingerprint']})\n"
        f"  {finding['steps']:,} steps of {finding['global_batch']:,} samples: "
        f"{finding['samples']:,} samples\n"
        f"  objectives: {', '.join(finding['objectives'])}\n"
        f"  sources: {sources}\n{remote}{groups}"
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
