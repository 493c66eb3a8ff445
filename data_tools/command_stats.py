"""``ssl-data stats``: what a data set's columns are like."""

import argparse
from pathlib import Path

NAME = "stats"
SUMMARY = "tell what a data set holds: samples, bytes, and what each column's values are like"
EXAMPLES = """\
examples:
  ssl-data stats shards/photos
  ssl-data stats shards/photos --json
"""
_SHOWN = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a data set")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> None:
    """Summarize every column."""
    import json
    from dataclasses import asdict

    from .columns.catalog import Catalog
    from .columns.summary import summarize_columns
    from .console import say
    from .dataset import summarize

    catalog = Catalog.open(args.folder)
    if args.json:
        columns = [asdict(summary) for summary in summarize_columns(catalog)]
        say(json.dumps({"samples": catalog.dataset.num_samples, "columns": columns}))
        return
    say(summarize(catalog.dataset, 0))
    for summary in summarize_columns(catalog):
        told = f"{summary.present:,} values" + (
            f", {summary.missing:,} missing" if summary.missing else ""
        )
        if summary.values is not None:
            top = sorted(summary.values.items(), key=lambda item: -item[1])[:_SHOWN]
            more = len(summary.values) - len(top)
            told += ": " + ", ".join(f"{value} {count:,}" for value, count in top)
            told += f" and {more:,} others" if more > 0 else ""
        if summary.quantiles:
            low, middle, high = summary.quantiles
            told += (
                f"; from {summary.least:,.6g} to {summary.greatest:,.6g}, mean {summary.mean:,.6g},"
                f" 5/50/95 % {low:,.6g} {middle:,.6g} {high:,.6g}"
            )
        say(f"  {summary.name} ({summary.type}): {told}")
    for column in catalog.columns.values():
        if column.fault is not None:
            say(f"  set aside: {column.fault}")
            break
