"""``ssl-data index``: shards that others made become a data set."""

import argparse
from pathlib import Path

from ssl_scale.errors import DataError

NAME = "index"
SUMMARY = "index WebDataset shards that others made"
EXAMPLES = """\
examples:
  ssl-data index laion/                     writes manifest.parquet, dataset.index, dataset.json
  ssl-data index laion/ --check header --on-bad skip --workers 8

The archives are only read. A killed run goes on where it was.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of .tar shards")
    parser.add_argument("--name", help="name of the data set [FOLDER's last part]")
    parser.add_argument(
        "--check",
        choices=("none", "header", "decode"),
        default="none",
        help="how closely samples are looked at [none]",
    )
    parser.add_argument(
        "--on-bad",
        choices=("stop", "skip"),
        default="stop",
        help="stop at a bad sample, or leave it out of the index, with its reason in "
        "rejected.jsonl [stop]",
    )
    parser.add_argument("--workers", type=int, help="processes; 0 for none [as many as CPUs]")


def run(args: argparse.Namespace) -> None:
    """Plan and index."""
    from .console import Progress, note, say
    from .dataset import summarize
    from .examine import Check
    from .executors import LocalExecutor, default_workers
    from .index_shards import index_folder, plan_index

    if args.workers is not None and args.workers < 0:
        raise DataError(f"--workers must be 0 or more, but is {args.workers}")
    tasks = plan_index(args.folder, Check(args.check), args.on_bad == "skip")
    workers = default_workers(len(tasks)) if args.workers is None else args.workers
    name = args.name or args.folder.resolve().name
    with Progress(f"index {name}", sum(task.size for task in tasks), "bytes") as bar:
        dataset, num_rejected = index_folder(
            args.folder,
            name,
            tasks,
            LocalExecutor(),
            workers,
            lambda task, _: bar.advance(task.size),
            note,
        )
    say(summarize(dataset, num_rejected))
