"""Measure what runs have learned on held-out data, by the probes of their recipes.

Every run is one row of the table, beside raw pixels and the untrained encoder; several seeds, which
choose the labelled samples, give the spread. The first run's recipe says what is measured, in its
section `evaluation`.
"""

import argparse
from pathlib import Path

from ssl_scale.cli.options import add_overrides, bindings, overrides
from ssl_scale.errors import RecipeError

EXAMPLES = """examples:
  ssl-scale evaluate runs/demo
  ssl-scale evaluate runs/mixture runs/supervised --label mixture --label "supervised only"
  ssl-scale evaluate runs/demo --teacher ema --output table.json
  ssl-scale evaluate runs/demo --set probes.few_labels.k=5
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--label", action="append", default=[], metavar="NAME", help="a row's name; one a run"
    )
    parser.add_argument("--teacher", metavar="NAME", help="measure a teacher, not the student")
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
        labels=arguments.label,
        teacher=arguments.teacher,
    )
    return 0
