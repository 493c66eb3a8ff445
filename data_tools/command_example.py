"""``ssl-data example``: raw data to try the other commands on, made without a download."""

import argparse
from pathlib import Path

from ssl_scale.errors import DataError

NAME = "example"
SUMMARY = "write raw data to try the other commands on"
EXAMPLES = """\
examples:
  ssl-data example digits raw/digits        scikit-learn's handwritten digits, with captions
  ssl-data example stdlib raw/stdlib        functions of Python's standard library
  ssl-data build raw/digits/test shards/digits_test
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("what", choices=("digits", "stdlib"), help="which data")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write it")
    digits = parser.add_argument_group("digits")
    digits.add_argument(
        "--labels-per-class", type=int, default=2, metavar="N", help="labelled images a class [2]"
    )
    digits.add_argument(
        "--captions", type=int, default=150, metavar="N", help="captioned images [150]"
    )
    digits.add_argument(
        "--named",
        type=float,
        default=0.2,
        metavar="RATIO",
        help="share of the captions that name the class [0.2]",
    )
    stdlib = parser.add_argument_group("stdlib")
    stdlib.add_argument(
        "--functions", type=int, default=6000, metavar="N", help="at most so many [6000]"
    )


def run(args: argparse.Namespace) -> None:
    """Write the example."""
    from .console import say

    for option in ("labels_per_class", "captions", "functions"):
        if getattr(args, option) < 1:
            flag = "--" + option.replace("_", "-")
            raise DataError(f"{flag} must be at least 1, but is {getattr(args, option)}")
    if not 0 <= args.named <= 1:
        raise DataError(f"--named must be in [0, 1], but is {args.named:g}")
    if args.what == "digits":
        from .example_digits import make_digits

        counts = make_digits(args.folder, args.labels_per_class, args.captions, args.named)
    else:
        from .example_stdlib import make_stdlib

        counts = make_stdlib(args.folder, args.functions)
    say(f"{args.folder}: " + ", ".join(f"{name} {number:,}" for name, number in counts.items()))
