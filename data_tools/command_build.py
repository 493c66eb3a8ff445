"""``ssl-data build``: raw files or a table become WebDataset shards with index and manifest."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_scale.errors import DataError

if TYPE_CHECKING:
    from .build import BuildOptions, ShardSize
    from .raw import Listing, RawSample

NAME = "build"
SUMMARY = "turn raw files or a table into shards"
EXAMPLES = """\
examples:
  ssl-data build photos/ shards/photos              files that share a stem are one sample:
                                                    cat/1.jpg, cat/1.txt, cat/1.cls
  ssl-data build photos/ shards/photos --table photos.csv \\
      --file-column path --text-column caption --text-column label=cls
  ssl-data build captions.jsonl shards/captions --file-column image --text-column caption
  ssl-data build photos/ shards/photos --on-bad skip --shard-size 512MB --workers 8
  ssl-data build photos/ shards/photos --split train=0.9 --split test=0.1
                                                    writes shards/photos/train and .../test

A killed build goes on where it was: give the same command again. Exit codes: 0 done,
2 something is wrong with the input or the options.
"""
UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "input", type=Path, metavar="INPUT", help="folder of files, or a .jsonl/.csv/.tsv table"
    )
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="new folder for the shards")
    table = parser.add_argument_group("tables")
    table.add_argument(
        "--table", type=Path, help="table whose paths are relative to INPUT (a folder)"
    )
    table.add_argument(
        "--file-column",
        action="append",
        default=[],
        metavar="COLUMN[=EXT]",
        help="column with paths; the extension is the file's unless given; repeatable",
    )
    table.add_argument(
        "--text-column",
        action="append",
        default=[],
        metavar="COLUMN[=EXT]",
        help="column with text, by default for .txt; repeatable",
    )
    table.add_argument("--key-column", metavar="COLUMN", help="column with keys [row number]")
    parser.add_argument("--name", help="name of the data set [OUTPUT's last part]")
    parser.add_argument(
        "--shard-size",
        default="256MB",
        metavar="N|SIZE",
        help="samples (1000) or bytes (256MB, 1GB) a shard [256MB]",
    )
    parser.add_argument(
        "--order",
        choices=("shuffled", "listed"),
        default="shuffled",
        help="by a hash of the key, so that each shard holds a bit of everything, or as listed: "
        "by name, by row [shuffled]",
    )
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME=FRACTION",
        help="part the samples by a hash of the key into OUTPUT/NAME; repeatable",
    )
    parser.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="EXT",
        help="a sample without this extension is bad; repeatable",
    )
    parser.add_argument(
        "--check",
        choices=("none", "header", "decode"),
        default="decode",
        help="how closely samples are looked at [decode]",
    )
    parser.add_argument(
        "--on-bad",
        choices=("stop", "skip"),
        default="stop",
        help="stop at a bad sample, or set it aside with its reason in rejected.jsonl [stop]",
    )
    parser.add_argument("--workers", type=int, help="processes; 0 for none [as many as CPUs]")
    parser.add_argument(
        "--time-limit", type=float, metavar="SECONDS", help="longest time for a shard [none]"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a finished data set")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")


def run(args: argparse.Namespace) -> None:
    """List, plan, build."""
    from .build import BuildOptions, require_extensions, require_good, split_samples
    from .examine import Check

    root = _find_root(args)
    skip_bad = args.on_bad == "skip"
    listing = require_extensions(_list(args, root), [text.lstrip(".") for text in args.require])
    require_good(listing, args.input, skip_bad)
    options = BuildOptions(
        name=args.name or args.output.resolve().name,
        shard_size=parse_size(args.shard_size),
        shuffle=args.order == "shuffled",
        check=Check(args.check),
        skip_bad=skip_bad,
        overwrite=args.overwrite,
        time_limit_s=args.time_limit,
    )
    if not args.split:
        _build_one(args, root, listing.samples, listing, args.output, options)
        return
    parts = split_samples(listing.samples, dict(map(_parse_split, args.split)))
    for name, samples in parts.items():
        if not samples:
            raise DataError(f"split {name!r} must have samples, but gets none; make it larger")
    for number, (name, samples) in enumerate(parts.items()):
        # What the listing set aside belongs to no split; it is recorded once, with the first.
        aside = listing if number == 0 else type(listing)()
        _build_one(args, root, samples, aside, args.output / name, options)


def _build_one(
    args: argparse.Namespace,
    root: Path,
    samples: "list[RawSample]",
    listing: "Listing",
    output: Path,
    options: "BuildOptions",
) -> None:
    from .build import build, plan_shards
    from .console import Progress, note, say
    from .dataset import summarize
    from .executors import LocalExecutor, default_workers

    tasks = plan_shards(samples, root, options)
    if args.dry_run:
        size = sum(sample.tar_bytes for sample in samples)
        say(
            f"would write {len(samples):,} samples, {size / 1e6:,.1f} MB, in {len(tasks):,} shards "
            f"to {output}; {len(listing.rejected):,} files or rows set aside so far; their "
            "contents were not looked at"
        )
        return
    workers = default_workers(len(tasks)) if args.workers is None else args.workers
    with Progress(f"build {options.name}", len(samples), "samples") as bar:
        dataset, num_rejected = build(
            tasks,
            output,
            listing.rejected,
            options,
            LocalExecutor(),
            workers,
            lambda task, _: bar.advance(task.size),
            note,
        )
    say(summarize(dataset, num_rejected))


def _find_root(args: argparse.Namespace) -> Path:
    source: Path = args.input
    if not source.exists():
        raise DataError(f"{source} must be a folder or a table, but does not exist")
    if args.workers is not None and args.workers < 0:
        raise DataError(f"--workers must be 0 or more, but is {args.workers}")
    if args.time_limit is not None and args.time_limit <= 0:
        raise DataError(f"--time-limit must be more than 0, but is {args.time_limit:g}")
    if args.table is not None and not source.is_dir():
        raise DataError(f"{source} must be a folder where --table is given, but is a file")
    root = (source if source.is_dir() else source.parent).resolve()
    output = args.output.resolve()
    if source.is_dir() and args.table is None and output.is_relative_to(root):
        raise DataError(f"OUTPUT must lie outside INPUT, but {output} is in {root}")
    return root


def _list(args: argparse.Namespace, root: Path) -> "Listing":
    from .raw_folder import list_folder
    from .raw_table import Column, list_table

    table = args.table if args.table is not None else args.input if args.input.is_file() else None
    if table is None:
        for option in ("file_column", "text_column", "key_column"):
            if getattr(args, option):
                flag = "--" + option.replace("_", "-")
                raise DataError(f"{flag} must come with a table, but {args.input} is a folder")
        return list_folder(root)
    if not table.is_file():
        raise DataError(f"{table} must be a table, but is no file")
    return list_table(
        table,
        root,
        [Column.parse(text, None) for text in args.file_column],
        [Column.parse(text, "txt") for text in args.text_column],
        args.key_column,
    )


def parse_size(text: str) -> "ShardSize":
    """Read ``1000`` (samples) or ``256MB`` (bytes).

    Raises:
        DataError: it is neither.
    """
    from .build import ShardSize

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|[kmg]b)", text.strip().lower())
    if not match or float(match[1]) == 0 or (not match[2] and not match[1].isdigit()):
        raise DataError(f"--shard-size must be like 1000 (samples) or 256MB, but is {text!r}")
    if not match[2]:
        return ShardSize(samples=int(match[1]))
    return ShardSize(bytes=int(float(match[1]) * UNITS[match[2]]))


def _parse_split(text: str) -> tuple[str, float]:
    name, _, fraction = text.partition("=")
    try:
        value = float(fraction)
    except ValueError:
        value = 0.0
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or not 0 < value < 1:
        raise DataError(f"--split must be like train=0.9, but is {text!r}")
    return name, value
