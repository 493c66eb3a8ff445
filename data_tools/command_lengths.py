"""``ssl-data lengths``: how long each sample is, for packing and for weights that count tokens."""

import argparse
from pathlib import Path

from ssl_scale.errors import DataError

NAME = "lengths"
SUMMARY = "count tokens, or lengths of arrays and sounds, of a data set's samples"
EXAMPLES = """\
examples:
  ssl-data lengths shards/stdlib --extension txt --tokenizer shards/tokenizer.json
  ssl-data lengths shards/scans --extension points.npy --workers 8
  ssl-data lengths shards/scans --extension npz --entry points
  ssl-data lengths shards/pages --extension json --entry title --tokenizer shards/tokenizer.json
  ssl-data lengths shards/speech --extension wav flac --sample-rate-hz 16000

Writes lengths/NAME.npy into the folder; shards are only read. A killed run goes on where it was,
and after the data set has grown only what is new is counted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a data set")
    parser.add_argument(
        "--extension", nargs="+", required=True, help="of the members; a sample's first one counts"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="count tokens of texts by it [count rows of .npy arrays]"
    )
    parser.add_argument("--entry", help="of .npz files this array, of JSON this text [all of it]")
    parser.add_argument(
        "--sample-rate-hz", type=int, metavar="N", help="count samples of sound at this rate"
    )
    parser.add_argument("--workers", type=int, help="processes; 0 for none [as many as CPUs]")


def run(args: argparse.Namespace) -> None:
    """Plan and measure."""
    from .console import Progress, note, say
    from .executors import LocalExecutor, default_workers
    from .lengths import plan_lengths, write_lengths

    if args.workers is not None and args.workers < 0:
        raise DataError(f"--workers must be 0 or more, but is {args.workers}")
    if args.sample_rate_hz is not None:
        if args.sample_rate_hz < 1:
            raise DataError(f"--sample-rate-hz must be at least 1, but is {args.sample_rate_hz}")
        if args.tokenizer or args.entry:
            raise DataError("--sample-rate-hz must stand without --tokenizer and --entry")
    tasks = plan_lengths(
        args.folder, args.extension, args.tokenizer, args.entry, args.sample_rate_hz
    )
    workers = default_workers(len(tasks)) if args.workers is None else args.workers
    with Progress("lengths", sum(task.size for task in tasks), "samples") as bar:
        column, counts = write_lengths(
            args.folder,
            tasks,
            LocalExecutor(),
            workers,
            lambda task, _: bar.advance(task.size),
            note,
        )
    mean = counts["total"] / max(counts["measured"], 1)
    bad = f", {counts['bad']:,} unreadable" if counts["bad"] else ""
    say(f"{column}: {counts['measured']:,} of {counts['samples']:,} samples, mean {mean:.1f}{bad}")
