"""Indexing shards that others made: one task finds a shard's samples and describes them."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ssl_scale.data.index import DATASET_FILE, Dataset, describe_shard
from ssl_scale.data.samples import ShardIndex, index_shard
from ssl_scale.errors import DataError

from .dataset import describe_samples, finish_dataset
from .examine import Check, examine
from .manifest import ManifestRow
from .raw import Unfit, require_name
from .work import Executor, Marker, Produced, Stage, Task, find_done, hash_of, run_stage
from .work import work_folder as hold_folder

VERSION = 2


@dataclass(frozen=True)
class Indexing:
    """The input of one task.

    Args:
        shard: path of a tar archive.
        check: how closely its samples are looked at.
        skip_bad: leave bad samples out of the index rather than stop.
    """

    shard: str
    check: Check
    skip_bad: bool


def index_one(indexing: Indexing, folder: Path) -> Produced:
    """Write index and manifest part of a shard; see `Stage`.

    Raises:
        DataError: the shard is damaged or no WebDataset shard, or a sample is bad.
    """
    path = Path(indexing.shard)
    index = index_shard(path)
    rows: list[ManifestRow] = []
    kept = np.ones(len(index), dtype=bool)
    errors: list[dict[str, str]] = []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for row, key in enumerate(index.keys):
            contents = _read_members(descriptor, index, row)
            try:
                require_name(key.removeprefix("./"))  # as `tar cf x.tar ./*` writes
                facts = examine(contents, indexing.check)
            except Unfit as unfit:
                if not indexing.skip_bad:
                    raise DataError(f"{path}: sample {key!r}: {unfit}") from None
                kept[row] = False
                errors.append({"where": path.name, "reason": str(unfit), "key": key})
                continue
            rows.append(ManifestRow.of(key, path.name, contents, facts))
    finally:
        os.close(descriptor)
    if not rows:
        return Produced({"samples": 0, "rejected": len(errors)}, errors)
    index = index.select(kept)
    shard = describe_shard(path, index)
    counts = describe_samples(folder, path.name.removesuffix(".tar"), index, rows)
    return Produced({**counts, "rejected": len(errors)}, errors, {"shard": asdict(shard)})


def _read_members(descriptor: int, index: ShardIndex, row: int) -> dict[str, bytes]:
    return {
        extension: os.pread(descriptor, int(lengths[row]), int(index.offsets[extension][row]))
        for extension, lengths in index.lengths.items()
        if lengths[row] >= 0
    }


def plan_index(folder: Path, check: Check, skip_bad: bool) -> list[Task]:
    """One task for each ``.tar`` of the folder, by name.

    Raises:
        DataError: there is none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder of .tar shards, but is not")
    paths = sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))
    if not paths:
        packed = [path.name for path in sorted(folder.glob("*.tar.*"))]
        hint = f" but {packed[0]}, which must be unpacked first" if packed else ""
        raise DataError(f"{folder} must hold .tar shards, but holds none{hint}")
    tasks = []
    for path in paths:
        about = path.stat()
        tasks.append(
            Task(
                name=path.name.removesuffix(".tar"),
                payload=Indexing(str(path), check, skip_bad),
                input_hash=hash_of(path.name, about.st_size, about.st_mtime_ns),
                size=about.st_size,
            )
        )
    return tasks


def index_folder(
    folder: Path,
    name: str,
    tasks: Sequence[Task],
    executor: Executor,
    workers: int,
    progress: Callable[[Task, Marker], None],
    announce: Callable[[str], None],
) -> tuple[Dataset, int]:
    """Index all shards and write manifest and ``dataset.json`` beside them.

    Args:
        folder: where the shards are.
        name: the data set's.
        tasks: from `plan_index`.
        executor: where to run.
        workers: on how many workers; 0 runs in this process.
        progress: told of each shard.
        announce: told of work that was done before.

    Returns:
        The data set, and how many samples were set aside.

    Raises:
        DataError: shards are damaged, or a sample is bad.
    """
    first: Indexing = tasks[0].payload
    config = hash_of(first.check, first.skip_bad)
    stage = Stage("index", folder, index_one, config, VERSION)
    with hold_folder(folder):
        if any(find_done(stage, task) is None for task in tasks):
            (folder / DATASET_FILE).unlink(missing_ok=True)
        markers = run_stage(
            stage, tasks, executor, workers, progress, announce, stop_at_first=False
        )
        dataset = finish_dataset(stage, name, markers)
    return dataset, sum(marker.counts["rejected"] for marker in markers)
