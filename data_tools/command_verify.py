"""``ssl-data verify``: are the shards still those that were indexed?"""

import argparse
from pathlib import Path

from ssl_scale.errors import DataError

NAME = "verify"
SUMMARY = "compare all shards with the checksums in their index"
EXAMPLES = """\
examples:
  ssl-data verify shards/photos            reads every shard; names those that changed

Training checks a shard's size when it opens it, and its samples when it decodes them. This finds
the rest: bytes that changed in place, in copies, on failing disks.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a data set")
    parser.add_argument("--threads", type=int, default=4, help="shards read at once [4]")


def run(args: argparse.Namespace) -> None:
    """Open and compare."""
    from ssl_scale.data.index import read_dataset

    from .console import Progress, say
    from .dataset import summarize
    from .verify import verify_shards

    if args.threads < 1:
        raise DataError(f"--threads must be 1 or more, but is {args.threads}")
    dataset = read_dataset(args.folder)
    with Progress(f"verify {dataset.name}", dataset.shards.total_bytes, "bytes") as bar:
        verify_shards(dataset, args.threads, bar.advance)
    say(f"{summarize(dataset, 0)}: all as indexed")
