"""``ssl-data select``: who is kept, and for each of the others the reason why not."""

import argparse
from pathlib import Path

from ssl_scale.errors import DataError

from .selecting.language import HELP

NAME = "select"
SUMMARY = "keep samples that meet a condition, drawn evenly if wished; nothing is deleted"
EXAMPLES = f"""\
examples:
  ssl-data select shards/photos "width >= 64 and not is_duplicate"
  ssl-data select shards/photos "blur < 0.2" --size 1000000 --balance cluster.level1 --name even
  ssl-data select shards/photos --drop-keys takedown.txt --name clean
  ssl-data select shards/photos "label in [3, 5]" --dry-run

{HELP}

Writes columns NAME.kept and NAME.reason, which `ssl-data write` turns into shards, and which other
conditions may name.
"""
LARGEST_SEED = 1 << 63


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a data set")
    parser.add_argument("condition", nargs="?", metavar="CONDITION", help="see below [all]")
    parser.add_argument("--name", default="selection", help="of the columns [%(default)s]")
    parser.add_argument("--size", type=int, metavar="N", help="draw N of those that are left")
    parser.add_argument(
        "--balance", metavar="COLUMN", help="draw alike from each value of this column"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw [0]")
    parser.add_argument(
        "--drop-keys", type=Path, metavar="FILE", help="drop these, a key a line, whatever they are"
    )
    parser.add_argument("--dry-run", action="store_true", help="count, write nothing")


def run(args: argparse.Namespace) -> None:
    """Select, say how many were dropped for which reason, and write the columns."""
    from .columns.catalog import Catalog
    from .columns.seal import Seal
    from .columns.store import columns_file, write_columns
    from .console import say
    from .selecting.expression import Expression
    from .selecting.selection import SCHEMA, VERSION, DropList, Wish, select
    from .work import work_folder

    if args.size is not None and args.size < 1:
        raise DataError(f"--size must be at least 1, but is {args.size}")
    if args.balance and args.size is None:
        raise DataError("--balance must come with --size: how many to draw in all")
    if not 0 <= args.seed < LARGEST_SEED:
        raise DataError(f"--seed must be from 0 to {LARGEST_SEED - 1}, but is {args.seed}")
    columns_file(args.folder, args.name)
    wish = Wish(
        None if args.condition is None else Expression.parse(args.condition),
        None if args.drop_keys is None else DropList.read(args.drop_keys),
        args.size,
        args.balance,
        args.seed,
    )
    catalog = Catalog.open(args.folder)
    selection = select(catalog, wish)
    total = catalog.dataset.num_samples
    for reason, count in selection.counts().items():
        say(f"{count:>12,} dropped  {reason}")
    say(f"{selection.num_kept:>12,} kept of {total:,} ({selection.num_kept / total:.1%})")
    if args.dry_run:
        return
    told = {"condition": args.condition, "size": args.size, "balance": args.balance}
    told |= {
        "seed": args.seed,
        "drop_keys": None if args.drop_keys is None else str(args.drop_keys),
    }
    seal = Seal.of(NAME, VERSION, told, catalog.dataset)
    with work_folder(columns_file(args.folder, args.name).parent):
        path = write_columns(args.folder, args.name, seal, SCHEMA, selection.batches())
    say(f"{path}: {args.name}.kept, {args.name}.reason")
