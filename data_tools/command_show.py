"""``ssl-data show``: all that is known of one sample."""

import argparse
from pathlib import Path

NAME = "show"
SUMMARY = "show all that is known of a sample: where it lies, its members, every tool's columns"
EXAMPLES = """\
examples:
  ssl-data show shards/photos cat/000123
  ssl-data show shards/photos cat/000123 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a data set")
    parser.add_argument("key", metavar="KEY", help="of the sample")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> None:
    """Find the sample and print it."""
    import json

    from .columns.catalog import Catalog
    from .columns.find import find_sample
    from .console import say

    found = find_sample(Catalog.open(args.folder), args.key)
    if args.json:
        say(json.dumps(found, default=str))
        return
    width = max(map(len, found))
    for name, value in found.items():
        shown = "-" if value is None else str(value)
        say(f"{name:<{width}}  {''.join(c if c.isprintable() else '?' for c in shown)[:500]}")
