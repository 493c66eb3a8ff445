"""Compare the runs of a sweep: what was varied, how far each is, and which is best.

Runs are compared by the recipe's train.best, else by the training loss, or by --metric: any figure
of metrics.jsonl, lower being better; with a leading minus, higher is better. Of a held-out figure
the best value counts, of training the newest. The best row is marked *. A chain's links are listed
too.
"""

import argparse
import csv
import json
import math
import shutil
import sys
from pathlib import Path

from .slurm.watch.comparing import Comparison, Result, compare
from .slurm.watch.table import table

EXAMPLES = """examples:
  ssl-launch results runs/sweep
  ssl-launch results runs/sweep --metric held_out/loss/mae --sort
  ssl-launch results runs/sweep --metric=-held_out/accuracy/classify --csv > sweep.csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=Path, metavar="SWEEP", help="a sweep's or a chain's folder")
    parser.add_argument("--metric", metavar="NAME", help="the figure to compare by")
    parser.add_argument("--sort", action="store_true", help="best runs first")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--csv", action="store_true", help="comma-separated values")
    how.add_argument("--json", action="store_true", help="a list, an entry a run")


def run(arguments: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    found = compare(arguments.folder, arguments.metric)
    chosen = found.in_order() if arguments.sort else list(found.results)
    titles = titles_of(found)
    rows = [cells_of(found, result) for result in chosen]
    if arguments.csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows([titles, *rows])
    elif arguments.json:
        told = [dict(zip(titles, row, strict=True)) for row in rows]
        print(json.dumps(told, indent=1, allow_nan=False))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        shown = [[_shown(cell) for cell in row] for row in rows]
        numbers = range(1 + len(found.keys) + 1, len(titles))
        print("\n".join(table([titles, *shown], numbers, width)))
    return 0


def titles_of(found: Comparison) -> list[str]:
    """The columns, always in this order."""
    figure = [found.metric, f"best {found.metric}", "at step"]
    return ["run", *found.keys, "state", "step", *figure, "best"]


def cells_of(found: Comparison, result: Result) -> list[str | int | float | None]:
    """A run's row; None where nothing is known or a figure is not finite."""
    figure = result.figure
    told = [None] * 3 if figure is None else [figure.last, figure.best, figure.at_step]
    cells = [cell if cell is not None and math.isfinite(cell) else None for cell in told]
    mark = "*" if result is found.best else ""
    return [result.name, *result.given, result.state, result.step, *cells, mark]


def _shown(cell: str | int | float | None) -> str:
    if cell is None:
        return "-"
    return f"{cell:.5g}" if isinstance(cell, float) else str(cell)
