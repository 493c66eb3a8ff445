"""Measure what runs have learned, by the probes of their recipes.

Every run is one row of the table; several seeds give its spread.
"""

import argparse
from pathlib import Path

from ssl_scale.cli.options import add_overrides, bindings, overrides
from ssl_scale.errors import RecipeError

EXAMPLES = """examples:
  ssl-scale evaluate runs/demo
  ssl-scale evaluate runs/supervised runs/mixture --seeds 3 --output table.json
  ssl-scale evaluate runs/demo --set probes.few_labels.k=5
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--output", type=Path, metavar="F", help="default: evaluation.json in the run folder"
    )
    add_overrides(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate; returns the exit code."""
    if arguments.seeds < 1:
        raise RecipeError(f"--seeds must be at least 1, but is {arguments.seeds}")

    from ssl_scale.report.evaluate import evaluate

    evaluate(
        arguments.runs,
        overrides=overrides(arguments),
        bindings=bindings(arguments.data),
        seeds=arguments.seeds,
        output=arguments.output,
    )
    return 0
