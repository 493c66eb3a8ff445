"""What a data set's folder says about itself: one index a shard, and ``dataset.json``.

Beside ``NAME.tar`` lies ``NAME.index.parquet``: a row for each sample with its key and, for each
extension, byte offset and length of that member (length -1 where a sample lacks it). So a field is
one `pread`, a sample is found by its number, and the shard stays a plain WebDataset tar.
``dataset.json`` lists the shards and is written last: where it stands, the data set is complete.

Samples follow WebDataset's rule: the key is a member's path up to the first dot of its file name,
the rest is the extension in lower case; members of one sample stand side by side.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from ssl_scale.data.tar import Member, read_members
from ssl_scale.errors import DataError

VERSION = 1
DATASET_FILE = "dataset.json"
_LARGEST = 2**31 - 1
_CHUNK = 1 << 22
_SAMPLE = re.compile(r"((?:.*/|)[^.]+)[.]([^/]+)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The samples of one shard.

    Args:
        keys: name of each sample, in the shard's order.
        offsets: extension -> first byte of each sample's member.
        lengths: extension -> its bytes; -1 where the sample lacks it.
    """

    keys: Sequence[str]
    offsets: Mapping[str, NDArray[np.int64]]
    lengths: Mapping[str, NDArray[np.int32]]

    def __len__(self) -> int:
        return len(self.keys)

    def counts(self) -> dict[str, int]:
        """How many samples have each extension."""
        return {name: int((lengths >= 0).sum()) for name, lengths in self.lengths.items()}


class _Keys(Sequence[str]):
    """Keys left in Arrow's memory: a Python string each would take several times as much."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column.combine_chunks()

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return self._column[row].to_pylist()
        return self._column[row].as_py()


@dataclass(frozen=True)
class Shard:
    """A shard as ``dataset.json`` lists it.

    Args:
        name: file name of the archive.
        samples: how many it holds.
        bytes: its size.
        xxh3: the 128-bit XXH3 of its bytes, in hexadecimal.
    """

    name: str
    samples: int
    bytes: int
    xxh3: str


@dataclass(frozen=True)
class Dataset:
    """A complete data set on disk.

    Args:
        folder: where it lies.
        name: what its maker called it.
        shards: in their order.
        fields: extension -> samples that have it.
        generation: how often shards were appended.
    """

    folder: Path
    name: str
    shards: tuple[Shard, ...]
    fields: Mapping[str, int] = field(default_factory=dict)
    generation: int = 0

    @property
    def num_samples(self) -> int:
        """Samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """A hash of the ordered contents: equal fingerprints mean equal samples."""
        contents = json.dumps([(shard.samples, shard.xxh3) for shard in self.shards])
        return xxhash.xxh3_128_hexdigest(contents.encode())

    def path(self, shard: int) -> Path:
        """Where a shard lies."""
        return self.folder / self.shards[shard].name


def index_path(shard: Path) -> Path:
    """Where a shard's index lies."""
    return shard.with_name(shard.name.removesuffix(".tar") + ".index.parquet")


def index_shard(path: Path) -> ShardIndex:
    """Find the samples of a tar shard.

    Raises:
        DataError: the shard is damaged, empty, or its members are not WebDataset samples.
    """
    return collect_samples(path, read_members(path))


def collect_samples(path: Path, members: Iterable[Member]) -> ShardIndex:
    """Group members into samples; files without an extension and ``__meta__`` ones are left out."""
    rows: dict[str, int] = {}
    found: dict[str, list[tuple[int, int, int]]] = {}
    for member, key, extension in _name_parts(members):
        row = rows.setdefault(key, len(rows))
        places = found.setdefault(extension, [])
        if row != len(rows) - 1:
            raise DataError(
                f"{path}: members of one sample must stand side by side, but {member.name!r} comes "
                "after another sample began; sort the archive by name"
            )
        if places and places[-1][0] == row:
            raise DataError(
                f"{path}: a sample must have one member of an extension, but {key!r} has two "
                f"'.{extension}'; give every sample a key of its own"
            )
        if member.length > _LARGEST:
            raise DataError(
                f"{path}: a member must be at most {_LARGEST} bytes, but {member.name!r} has "
                f"{member.length}; split it"
            )
        places.append((row, member.offset, member.length))
    if not rows:
        raise DataError(
            f"{path}: a shard must hold samples (members called KEY.EXTENSION), but it holds none; "
            "remove the file"
        )
    columns = {name: _columns(found[name], len(rows)) for name in sorted(found)}
    return ShardIndex(
        list(rows),
        {name: offsets for name, (offsets, _) in columns.items()},
        {name: lengths for name, (_, lengths) in columns.items()},
    )


def _name_parts(members: Iterable[Member]) -> Iterator[tuple[Member, str, str]]:
    for member in members:
        match = _SAMPLE.fullmatch(member.name)
        if match and not _META.match(member.name):
            yield member, match[1], match[2].lower()


def _columns(
    places: list[tuple[int, int, int]], samples: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    table = np.array(places, dtype=np.int64)
    offsets, lengths = np.zeros(samples, np.int64), np.full(samples, -1, np.int32)
    offsets[table[:, 0]], lengths[table[:, 0]] = table[:, 1], table[:, 2]
    return offsets, lengths


def hash_file(path: Path) -> str:
    """The 128-bit XXH3 of a file, in hexadecimal."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_shard_index(path: Path, index: ShardIndex, folder: Path | None = None) -> Shard:
    """Write the index of a finished shard, and say what ``dataset.json`` must list.

    Args:
        path: the shard.
        index: its samples.
        folder: where the index goes; beside the shard if None.
    """
    shard = Shard(path.name, len(index), path.stat().st_size, hash_file(path))
    arrays: dict[str, pa.Array] = {"key": pa.array(index.keys, pa.string())}
    for name in index.offsets:
        arrays[f"{name}.offset"] = pa.array(index.offsets[name])
        arrays[f"{name}.length"] = pa.array(index.lengths[name])
    about = {"version": str(VERSION), "shard_bytes": str(shard.bytes), "shard_xxh3": shard.xxh3}
    table = pa.table(arrays).replace_schema_metadata(about)
    target = index_path(path if folder is None else folder / path.name)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    pq.write_table(table, temporary, compression="zstd")
    os.replace(temporary, target)
    return shard


def read_shard_index(dataset: Dataset, shard: int, extensions: Iterable[str]) -> ShardIndex:
    """Read a shard's index, of these extensions only; one that no sample has is all absent.

    Raises:
        DataError: the index is missing, unreadable or speaks of other contents.
    """
    listed, path = dataset.shards[shard], dataset.path(shard)
    source = index_path(path)
    try:
        # A file opened here, and no threads: both are safe in a forked loader worker.
        with source.open("rb") as file:
            parquet = pq.ParquetFile(file)
            present = set(parquet.schema_arrow.names)
            wanted = [name for name in extensions if f"{name}.offset" in present]
            columns = [f"{name}.{part}" for name in wanted for part in ("offset", "length")]
            table = parquet.read(columns=["key", *columns], use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{source}: must be the readable index of {listed.name}, but is not ({error}); "
            f"run `ssl-data index {dataset.folder}`"
        ) from error
    about = {key.decode(): text.decode() for key, text in (table.schema.metadata or {}).items()}
    if (about.get("shard_xxh3"), table.num_rows) != (listed.xxh3, listed.samples):
        raise DataError(
            f"{source}: must describe the {listed.samples} samples that {DATASET_FILE} lists for "
            f"{listed.name} (xxh3 {listed.xxh3}), but describes {table.num_rows} (xxh3 "
            f"{about.get('shard_xxh3')}); run `ssl-data index {dataset.folder}`"
        )
    return ShardIndex(
        _Keys(table.column("key")),
        {name: table.column(f"{name}.offset").to_numpy() for name in wanted},
        {name: table.column(f"{name}.length").to_numpy() for name in wanted},
    )


def write_dataset(
    folder: Path, name: str, shards: Sequence[Shard], fields: Mapping[str, int], generation: int = 0
) -> Dataset:
    """Write ``dataset.json``, at once and last of all: its presence says that all is there."""
    dataset = Dataset(folder, name, tuple(shards), dict(fields), generation)
    text = json.dumps(
        {
            "version": VERSION,
            "name": name,
            "shards": [asdict(shard) for shard in shards],
            "fields": dict(fields),
            "num_samples": dataset.num_samples,
            "generation": generation,
        },
        indent=1,
    )
    temporary = folder / f".{DATASET_FILE}.{os.getpid()}"
    with temporary.open("w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / DATASET_FILE)
    return dataset


def read_dataset(folder: str | Path) -> Dataset:
    """Open a data set and check that its shards are there, whole and unchanged.

    Raises:
        DataError: anything is missing, empty or changed; says what to do.
    """
    folder = _local_folder(str(folder))
    about = _read_json(folder)
    try:
        shards = tuple(Shard(**entry) for entry in about["shards"])
        fields = {str(name): int(count) for name, count in about["fields"].items()}
        dataset = Dataset(folder, str(about["name"]), shards, fields, int(about["generation"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{folder / DATASET_FILE}: must list name, shards, fields and generation, but is "
            f"damaged ({error!r}); run `ssl-data index {folder}`"
        ) from error
    if not shards:
        raise DataError(
            f"{folder}: a data set must have at least one shard, but has none; build it again"
        )
    for shard in shards:
        _check_shard(folder, shard)
    return dataset


def _local_folder(name: str) -> Path:
    if "{" in name or name.endswith(".tar"):
        raise DataError(
            f"{name}: a data set must be a folder of indexed shards, but this names archives; put "
            "them in one folder, run `ssl-data index FOLDER` and give the folder"
        )
    if re.match(r"\w{2,}:/", name):  # one slash is what a `Path` leaves of the two
        raise DataError(
            f"{name}: a data set must be a local folder, but this is a remote address; copy it here"
        )
    folder = Path(name)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: a data set must be a folder of shards, but there is "
            f"{'a file' if folder.exists() else 'nothing'} at this path; correct the path, or make "
            "the data set with `ssl-data build`"
        )
    return folder


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / DATASET_FILE
    try:
        about = json.loads(path.read_text())
    except FileNotFoundError:
        archives = len(list(folder.glob("*.tar")))
        remedy = (
            f"it has {archives} without an index, or its build was cut short; "
            f"run `ssl-data index {folder}`, or the build again"
            if archives
            else "it has no shards at all; correct the path, or run `ssl-data build`"
        )
        raise DataError(
            f"{folder}: a data set must hold {DATASET_FILE} and shards, but {remedy}"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: must be readable JSON, but is not ({error}); run `ssl-data index {folder}`"
        ) from error
    version = about.get("version") if isinstance(about, dict) else None
    if version != VERSION:
        raise DataError(
            f"{path}: version must be {VERSION}, but is {version!r}; run `ssl-data index {folder}`"
        )
    return dict(about)


def _check_shard(folder: Path, shard: Shard) -> None:
    path = folder / shard.name
    if Path(shard.name).name != shard.name:
        raise DataError(
            f"{folder / DATASET_FILE}: a shard's name must be a plain file name, but is "
            f"{shard.name!r}; run `ssl-data index {folder}`"
        )
    if shard.samples < 1:
        raise DataError(
            f"{path}: a shard must hold samples, but is empty; remove it and run "
            f"`ssl-data index {folder}`"
        )
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError(
            f"{path}: {DATASET_FILE} lists this shard, but it is missing; put it back, or run "
            f"`ssl-data index {folder}` to go on without it"
        ) from None
    if size != shard.bytes:
        raise DataError(
            f"{path}: must be {shard.bytes} bytes as when it was indexed, but is {size}; restore "
            f"it, or run `ssl-data index {folder}` if the change was meant"
        )
