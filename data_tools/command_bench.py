"""``ssl-data bench``: how fast a recipe's loader is by itself, and what bounds it."""

import argparse
import json
import os
from dataclasses import asdict

from ssl_scale.cli.options import add_overrides, read_recipe_of
from ssl_scale.errors import DataError

NAME = "bench"
SUMMARY = "measure a recipe's data loader alone, and say what bounds it and what to change"
EXAMPLES = """\
examples:
  ssl-data bench vision/simclr --data images=shards/cc12m
  ssl-data bench mine.yaml --workers 0 4 8 --seconds 20 --cold
  ssl-data bench mine.yaml --json > loader.json

Makes the batches that one rank of training would make, and throws them away: nothing is trained.
The ranks of a node share its CPUs and disks, so a node with 8 ranks needs 8 times as much.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name or file, or a run folder")
    parser.add_argument(
        "--workers",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of loader processes to try [0, the recipe's, and up to the CPUs]",
    )
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="of each measurement, after the first batch [5]"
    )
    parser.add_argument(
        "--cold",
        action="store_true",
        help="before each measurement, ask the system to forget the shards it holds in memory",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    add_overrides(parser)


def run(args: argparse.Namespace) -> None:
    """Measure and tell."""
    from .console import note, say
    from .loader_bench import LoaderBench, numbers_of_workers
    from .loader_verdict import draw_table, find_bound

    if args.seconds <= 0:
        raise DataError(f"--seconds must be above 0, but is {args.seconds:g}")
    if args.workers and min(args.workers) < 0:
        raise DataError(f"--workers must be 0 or more, but one is {min(args.workers)}")
    recipe = read_recipe_of(args, args.recipe)
    own = recipe.data.num_workers
    cpus = len(os.sched_getaffinity(0))
    bench = LoaderBench(recipe, args.seconds, args.cold)
    speeds = []
    for number in numbers_of_workers(own, cpus, args.workers):
        note(f"{recipe.name}: {number} workers, {args.seconds:g} s ...")
        speeds.append(bench.measure(number))
    fields = bench.time_fields()
    bound = find_bound(speeds, fields, own, cpus)
    if args.json:
        figures = {
            "recipe": recipe.name,
            "cpus": cpus,
            "speeds": [{**asdict(speed), "samples_per_s": speed.samples_per_s} for speed in speeds],
            "fields_us": fields,
            **asdict(bound),
        }
        say(json.dumps(figures, indent=2))
    else:
        say(draw_table(speeds, own))
        say(f"bound by {bound.by}: {bound.because}")
        say(f"to change: {bound.change}")
