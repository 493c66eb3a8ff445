"""``ssl-data dedup``: which samples are copies."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_scale.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .columns.catalog import Catalog

NAME = "dedup"
SUMMARY = "find samples that are copies of one another, or of samples of other data sets"
EXAMPLES = """\
examples:
  ssl-data dedup shards/photos                          the whole sample is the same
  ssl-data dedup shards/photos --field jpg              the picture is, whatever its caption
  ssl-data dedup shards/photos --field jpg --keep width of copies the widest stays
  ssl-data dedup shards/photos --field jpg --against shards/imagenet_val --name eval
  ssl-data select shards/photos "not is_duplicate"

Writes columns NAME.is_duplicate, NAME.group (row of the sample that stays), NAME.copies and
NAME.found_in. Nothing is deleted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a data set")
    parser.add_argument("--field", metavar="EXT", help="compare this member [the whole sample]")
    parser.add_argument(
        "--keep", metavar="COLUMN", help="of copies, the one with the most of this stays [first]"
    )
    parser.add_argument(
        "--against",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="data sets whose samples must not be in this one",
    )
    parser.add_argument("--name", default="exact", help="of the columns [%(default)s]")
    parser.add_argument("--workers", type=int, help="processes; 0 for none [as many as CPUs]")


def run(args: argparse.Namespace) -> None:
    """Hash, group and write the columns."""
    import numpy as np

    from .columns.catalog import Catalog
    from .columns.seal import Seal
    from .columns.store import columns_file, write_columns
    from .console import say
    from .dedup.columns import SCHEMA, column_batches
    from .dedup.grouping import contained, group_equal
    from .dedup.hashes import VERSION
    from .work import work_folder

    if args.workers is not None and args.workers < 0:
        raise DataError(f"--workers must be 0 or more, but is {args.workers}")
    columns_file(args.folder, args.name)
    catalog = Catalog.open(args.folder)
    rank = None if args.keep is None else _rank(catalog, args.keep)
    hashes = _hashes(catalog, args)
    group = group_equal(hashes, rank)
    found_in = np.zeros(len(group), np.int16)
    for number, other in enumerate(args.against, 1):
        new = contained(hashes, _hashes(Catalog.open(other), args))
        found_in[new & (found_in == 0)] = number
    names = [str(path) for path in args.against]
    told = {"field": args.field, "keep": args.keep, "against": names}
    seal = Seal.of(NAME, VERSION, told, catalog.dataset)
    with work_folder(columns_file(args.folder, args.name).parent):
        batches = column_batches(group, found_in, names)
        path = write_columns(args.folder, args.name, seal, SCHEMA, batches)
    copies = int((group != np.arange(len(group))).sum())
    for number, name in enumerate(names, 1):
        say(f"{int((found_in == number).sum()):>12,} are in {name}")
    say(f"{copies:>12,} are copies of others, of {len(group):,} samples")
    say(f"{path}: {', '.join(f'{args.name}.{column}' for column in SCHEMA.names)}")


def _hashes(catalog: "Catalog", args: argparse.Namespace) -> "NDArray[np.uint64]":
    from .console import Progress, note
    from .dedup.hashes import hash_field, hash_samples
    from .executors import LocalExecutor, default_workers
    from .work import work_folder

    dataset = catalog.dataset
    if args.field is None:
        return hash_samples(catalog)
    extension = args.field.lstrip(".").lower()
    workers = default_workers(len(dataset.shards)) if args.workers is None else args.workers
    with (
        work_folder(dataset.folder / "columns"),
        Progress(f"hash {dataset.folder.name}", dataset.num_samples, "samples") as bar,
    ):
        return hash_field(
            dataset.folder,
            extension,
            LocalExecutor(),
            workers,
            lambda task, _: bar.advance(task.size),
            note,
        )


def _rank(catalog: "Catalog", column: str) -> Any:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    values = catalog.read([column])[column]
    try:
        return pc.fill_null(pc.cast(values, pa.float64()), -np.inf).to_numpy()
    except pa.ArrowException as error:
        raise DataError(f"--keep must be a column of numbers, but {column} is not") from error
