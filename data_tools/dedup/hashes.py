"""A hash of every sample's content, 128 bits of SHA-256: of the whole sample, or of one field."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_scale.data.index import Dataset, read_dataset
from ssl_scale.data.open_shard import OpenShard
from ssl_scale.errors import DataError

from ..columns.catalog import Catalog
from ..work import PRIVATE, Executor, Marker, Produced, Stage, Task, run_stage

VERSION = 1
# Stands for a sample that lacks the field: it is nobody's copy.
ABSENT = 0
_BYTES = 16
_AT_ONCE = 64


@dataclass(frozen=True)
class Hashing:
    """The input of one task.

    Args:
        folder: of the data set.
        shard: its number.
        extension: of the member that is hashed.
    """

    folder: str
    shard: int
    extension: str


def hash_shard(hashing: Hashing, folder: Path) -> Produced:
    """Write the hashes of a shard's samples; see `Stage`."""
    shard = OpenShard(
        read_dataset(Path(hashing.folder)), hashing.shard, {"hashed": [hashing.extension]}
    )
    found = np.full((len(shard.keys), 2), ABSENT, np.uint64)
    row = 0
    while row < len(found):
        for members in shard.fetch(row, min(_AT_ONCE, len(found) - row)):
            member = members["hashed"]
            if member is not None:
                digest = hashlib.sha256(member[0]).digest()
                found[row] = np.frombuffer(digest[:_BYTES], ">u8")
            row += 1
    part = folder / PRIVATE / f"{hashing.shard:06d}.npy"
    part.parent.mkdir()
    np.save(part, found, allow_pickle=False)
    return Produced({"samples": len(found), "lacking": int((found == ABSENT).all(axis=1).sum())})


def hash_field(
    folder: Path,
    extension: str,
    executor: Executor,
    workers: int,
    progress: Callable[[Task, Marker], None],
    announce: Callable[[str], None],
) -> NDArray[np.uint64]:
    """Hashes of one field of all samples, [N, 2]; what is done stays done.

    Call it inside `work_folder` of ``folder / "columns"``.

    Raises:
        DataError: no sample has such a member.
    """
    dataset = read_dataset(folder)
    if not dataset.fields.get(extension):
        found = ", ".join(sorted(dataset.fields))
        raise DataError(
            f"{folder}: --field must be a member's extension, but is {extension!r}; there are "
            f"{found}"
        )
    stage = Stage(f"sha256.{extension}", folder / "columns", hash_shard, extension, VERSION)
    tasks = [
        Task(f"{number:06d}", Hashing(str(folder), number, extension), shard.xxh3, shard.samples)
        for number, shard in enumerate(dataset.shards)
    ]
    run_stage(stage, tasks, executor, workers, progress, announce)
    return _join(dataset, [stage.markers / f"{task.name}.npy" for task in tasks])


def _join(dataset: Dataset, parts: Sequence[Path]) -> NDArray[np.uint64]:
    joined = np.empty((dataset.num_samples, 2), np.uint64)
    start = 0
    for part in parts:
        values = np.load(part, allow_pickle=False)
        joined[start : start + len(values)] = values
        start += len(values)
    return joined


def hash_samples(catalog: Catalog) -> NDArray[np.uint64]:
    """Hashes of whole samples, [N, 2], from the manifest's ``sha256``."""
    joined = np.empty((catalog.dataset.num_samples, 2), np.uint64)
    start = 0
    for batch in catalog.batches(["sha256"]):
        raw = bytes.fromhex("".join(value[: 2 * _BYTES] for value in batch["sha256"].to_pylist()))
        joined[start : start + batch.num_rows] = np.frombuffer(raw, ">u8").reshape(-1, 2)
        start += batch.num_rows
    return joined
