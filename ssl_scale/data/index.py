"""A data set's folder: tar shards, ``dataset.index`` and ``dataset.json``.

The index says where each field of each sample lies (`index_file` and `index_block` describe it), so
a field is one `pread`, a sample is found by its number, and shards stay plain WebDataset tars.
``dataset.json`` says what the whole holds and seals the index. It is written last: where it stands,
the data set is complete.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ssl_scale.data.index_block import DamagedError, decode_block
from ssl_scale.data.index_file import Seal, Shard, ShardTable, write_index
from ssl_scale.data.node_cache import NodeCache
from ssl_scale.data.remote import RemoteFile, folder_address, is_remote
from ssl_scale.data.samples import ShardIndex as ShardIndex
from ssl_scale.errors import DataError

VERSION = 3
DATASET_FILE = "dataset.json"
INDEX_FILE = "dataset.index"
# Opening looks at so many shards; `check_shards` looks at all, reading at the one that it reads.
_LOOKED_AT = 1000
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Dataset:
    """A complete data set.

    Args:
        folder: where it lies; if it is remote, where its index was brought to.
        name: what its maker called it.
        shards: in their order; a table on disk, so looking at one of them is cheap, at all not.
        fields: extension -> samples that have it.
        generation: how often shards were appended.
        address: where its shards are if that is not the folder.
        cache: brings them here.
    """

    folder: Path
    name: str
    shards: ShardTable
    fields: Mapping[str, int]
    generation: int = 0
    address: str | None = None
    cache: NodeCache | None = None

    @property
    def num_samples(self) -> int:
        """Samples in all shards."""
        return self.shards.total_samples

    @property
    def sizes(self) -> NDArray[np.uint32]:
        """Samples in each shard, in memory that all processes share."""
        return self.shards.sizes

    @property
    def fingerprint(self) -> str:
        """A hash of the ordered contents: equal fingerprints mean equal samples."""
        return self.shards.fingerprint

    def path(self, shard: int) -> Path:
        """Where a shard lies on this machine.

        Raises:
            DataError: it lies elsewhere.
        """
        if self.address is not None:
            raise DataError(
                f"{self.address}: a data set must be a local folder for this, but is at an "
                "address; copy it here"
            )
        return self.folder / self.shards.name(shard)

    def location(self, shard: int) -> str:
        """A shard's path or address, as a string: making a `Path` costs as much as a sample."""
        return f"{self.address or self.folder}/{self.shards.name(shard)}"

    def remote_file(self, shard: int) -> RemoteFile:
        """A shard of a data set at an address."""
        assert self.address is not None, "a local shard is read where it lies"
        listed = self.shards[shard]
        return RemoteFile(self.address, listed.name, listed.bytes, listed.xxh3)


def hash_file(path: Path) -> str:
    """The 128-bit XXH3 of a file, in hexadecimal."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def describe_shard(path: Path, index: ShardIndex) -> Shard:
    """What the index must list of a finished shard."""
    return Shard(path.name, len(index), path.stat().st_size, hash_file(path))


def read_shard_index(dataset: Dataset, shard: int, extensions: Iterable[str]) -> ShardIndex:
    """Read a shard's part of the index, of these extensions only; absent ones are left out.

    Raises:
        DataError: the index is damaged or speaks of other contents.
    """
    listed = dataset.shards[shard]
    block = dataset.shards.block(shard)
    try:
        return decode_block(block, extensions, listed.samples, listed.bytes)
    except DamagedError as error:
        raise DataError(
            f"{dataset.folder / INDEX_FILE}: must describe the {listed.samples} samples of "
            f"{listed.name}, but is damaged: {error}; run `ssl-data index {dataset.folder}`"
        ) from error


def write_dataset(
    folder: Path,
    name: str,
    shards: Sequence[Shard],
    blocks: Iterable[bytes],
    fields: Mapping[str, int],
    generation: int = 0,
) -> Dataset:
    """Write the index and, last of all, ``dataset.json``: its presence says that all is there.

    Args:
        folder: where the shards lie.
        name: what to call the data set.
        shards: in their order.
        blocks: the index of each of them, from `encode_block`.
        fields: extension -> samples that have it.
        generation: how often shards were appended.
    """
    index = folder / f".{INDEX_FILE}.{os.getpid()}"
    seal = write_index(index, shards, blocks)
    about = {
        "version": VERSION,
        "name": name,
        "num_shards": len(shards),
        "num_samples": sum(shard.samples for shard in shards),
        "fields": dict(fields),
        "generation": generation,
        "index": asdict(seal),
    }
    temporary = folder / f".{DATASET_FILE}.{os.getpid()}"
    with temporary.open("w") as file:
        file.write(json.dumps(about, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    # Between the two renamings the old seal does not fit the new index, which reading says.
    os.replace(index, folder / INDEX_FILE)
    os.replace(temporary, folder / DATASET_FILE)
    return read_dataset(folder)


def read_dataset(folder: str | Path, cache: NodeCache | None = None) -> Dataset:
    """Open a data set, in a time that does not depend on its size.

    Its index is checked, and the sizes of its first shards; `check_shards` checks all of them.
    Shards at an address are checked as they are brought here.

    Args:
        folder: where it lies, or its address.
        cache: what an address is read through; the one of this user if None.

    Raises:
        DataError: anything is missing, empty or changed; says what to do.
    """
    if is_remote(str(folder)):
        return _read_remote(folder_address(str(folder)), cache or NodeCache())
    dataset = _read_folder(_local_folder(str(folder)))
    check_shards(dataset, _LOOKED_AT)
    return dataset


def _read_remote(address: str, cache: NodeCache) -> Dataset:
    content = cache.read_small(address, DATASET_FILE)
    # Of its own for each version: what a run has opened is never replaced.
    folder = cache.keep(
        xxhash.xxh3_128_hexdigest(address.encode() + content), DATASET_FILE, content
    )

    def bring_index(seal: Seal) -> None:
        index = RemoteFile(address, INDEX_FILE, seal.bytes, seal.head_xxh3, seal.head_bytes)
        cache.fetch_index(index, folder)

    try:
        return replace(_read_folder(folder, bring_index), address=address, cache=cache)
    except DataError as error:
        raise DataError(str(error).replace(str(folder), address)) from error


def _read_folder(folder: Path, prepare: Callable[[Seal], None] | None = None) -> Dataset:
    about = _read_json(folder)
    try:
        seal = _read_seal(about["index"])
        fields = {str(name): int(count) for name, count in about["fields"].items()}
        name, generation = str(about["name"]), int(about["generation"])
        counted = int(about["num_shards"]), int(about["num_samples"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{folder / DATASET_FILE}: must say name, num_shards, num_samples, fields, generation "
            f"and index, but is damaged ({error!r}); run `ssl-data index {folder}`"
        ) from error
    if prepare is not None:
        prepare(seal)
    dataset = Dataset(folder, name, ShardTable(folder / INDEX_FILE, seal), fields, generation)
    if counted != (len(dataset.shards), dataset.num_samples):
        raise DataError(
            f"{folder / DATASET_FILE}: must count the {len(dataset.shards)} shards and "
            f"{dataset.num_samples} samples of {INDEX_FILE}, but counts {counted[0]} and "
            f"{counted[1]}; run `ssl-data index {folder}`"
        )
    return dataset


def _read_seal(about: Mapping[str, Any]) -> Seal:
    return Seal(int(about["bytes"]), int(about["head_bytes"]), str(about["head_xxh3"]))


def check_shards(dataset: Dataset, most: int | None = None) -> None:
    """Check that shards are there and have their sizes; remote ones are when they are brought.

    Args:
        dataset: whose.
        most: look at so many at most; None looks at all.

    Raises:
        DataError: one is missing or changed; says what to do.
    """
    if dataset.address is None:
        for shard in islice(dataset.shards, most):
            _check_shard(dataset.folder, shard)


def _check_shard(folder: Path, shard: Shard) -> None:
    path = folder / shard.name
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError(
            f"{path}: {INDEX_FILE} lists this shard, but it is missing; put it back, or run "
            f"`ssl-data index {folder}` to go on without it"
        ) from None
    if size != shard.bytes:
        raise DataError(
            f"{path}: must be {shard.bytes} bytes as when it was indexed, but is {size}; restore "
            f"it, or run `ssl-data index {folder}` if the change was meant"
        )


def _local_folder(name: str) -> Path:
    if "{" in name or name.endswith(".tar"):
        raise DataError(
            f"{name}: a data set must be a folder of indexed shards, but this names archives; put "
            "them in one folder, run `ssl-data index FOLDER` and give the folder"
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
