"""Indexing shards that others made: one task finds a shard's samples and describes them."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ssl_scale.data.index import DATASET_FILE, Dataset, describe_shard
from ssl_scale.data.member_checks import add_checks
from ssl_scale.data.samples import ShardIndex, collect_samples
from ssl_scale.data.tar import read_members
from ssl_scale.errors import DataError

from .dataset import describe_samples, finish_dataset
from .examine import Check, examine
from .manifest import ManifestRow
from .raw import Unfit, require_name
from .unpack import SUFFIXES, packed_suffix, unpack
from .work import (
    Executor,
    Marker,
    Produced,
    Stage,
    Task,
    find_done,
    hash_of,
    read_marker,
    run_stage,
)
from .work import work_folder as hold_folder

VERSION = 3
_NAMED = 5


@dataclass(frozen=True)
class Indexing:
    """The input of one task.

    Args:
        shard: path of a tar archive, or of a compressed one.
        check: how closely its samples are looked at.
        skip_bad: leave bad samples out of the index rather than stop.
    """

    shard: str
    check: Check
    skip_bad: bool


def index_one(indexing: Indexing, folder: Path) -> Produced:
    """Write index and manifest part of a shard, and the shard itself if it was compressed.

    See `Stage`.

    Raises:
        DataError: the shard is damaged or no WebDataset shard, or a sample is bad.
    """
    given = Path(indexing.shard)
    suffix = packed_suffix(given.name)
    if suffix is None:
        return _index_tar(given, indexing, folder)
    plain = folder / f"{given.name.removesuffix(suffix)}.tar"
    unpack(given, plain)
    try:
        produced = _index_tar(plain, indexing, folder)
    except DataError as error:
        raise DataError(str(error).replace(str(plain), str(given))) from error
    if not produced.counts["samples"]:
        plain.unlink()
    return produced


def _index_tar(path: Path, indexing: Indexing, folder: Path) -> Produced:
    errors: list[dict[str, str]] = []

    def set_aside(key: str, reason: str) -> None:
        errors.append({"where": path.name, "reason": reason, "key": key})

    members = read_members(path)
    index = collect_samples(path, members, set_aside if indexing.skip_bad else None)
    rows: list[ManifestRow] = []
    kept = np.ones(len(index), dtype=bool)
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
                set_aside(key, str(unfit))
                continue
            rows.append(ManifestRow.of(key, path.name, contents, facts))
    finally:
        os.close(descriptor)
    if not rows:
        return Produced({"samples": 0, "rejected": len(errors)}, errors)
    index = add_checks(path, index.select(kept))
    shard = describe_shard(path, index)
    counts = describe_samples(folder, _task_name(Path(indexing.shard)), index, rows)
    return Produced({**counts, "rejected": len(errors)}, errors, {"shard": asdict(shard)})


def _read_members(descriptor: int, index: ShardIndex, row: int) -> dict[str, bytes]:
    return {
        extension: os.pread(descriptor, int(lengths[row]), int(index.offsets[extension][row]))
        for extension, lengths in index.lengths.items()
        if lengths[row] >= 0
    }


def plan_index(folder: Path, check: Check, skip_bad: bool) -> list[Task]:
    """One task for each tar archive of the folder, compressed or not, by name.

    Raises:
        DataError: there is none, or two of one name.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder of .tar shards, but is not")
    shards: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: (packed_suffix(path.name) is None, path)):
        suffix = packed_suffix(path.name) or ".tar"
        if path.name.startswith(".") or not path.name.endswith(suffix):
            continue
        name = path.name.removesuffix(suffix)
        other = shards.setdefault(name, path)
        if other != path and not (suffix == ".tar" and _came_out_of(other, path)):
            raise DataError(
                f"{folder}: shards must have names of their own, but {other.name} and {path.name} "
                f"would both be {name}.tar; remove or rename one of them"
            )
    if not shards:
        raise DataError(
            f"{folder} must hold shards (.tar or one of {', '.join(SUFFIXES)}), but holds none"
        )
    tasks = []
    for _, path in sorted(shards.items()):
        about = path.stat()
        tasks.append(
            Task(
                name=_task_name(path),
                payload=Indexing(str(path), check, skip_bad),
                input_hash=hash_of(path.name, about.st_size, about.st_mtime_ns),
                size=about.st_size,
            )
        )
    return tasks


def _task_name(path: Path) -> str:
    """Another one for a compressed shard than for the plain one that came out of it.

    The plain one is a file that the first task made, and discards when its input has changed, but
    the input of the second, should the user remove the compressed one.
    """
    return path.name.removesuffix(".tar")


def _came_out_of(packed: Path, plain: Path) -> bool:
    marker = read_marker(_stage(packed.parent, ""), _task_name(packed))
    return marker is not None and plain.name in marker.files


def _stage(folder: Path, config: str) -> Stage:
    return Stage("index", folder, index_one, config, VERSION)


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
    stage = _stage(folder, config)
    with hold_folder(folder):
        _announce_changed(stage, tasks, announce)
        if any(find_done(stage, task) is None for task in tasks):
            (folder / DATASET_FILE).unlink(missing_ok=True)
        markers = run_stage(
            stage, tasks, executor, workers, progress, announce, stop_at_first=False
        )
        dataset = finish_dataset(stage, name, markers)
    return dataset, sum(marker.counts["rejected"] for marker in markers)


def _announce_changed(stage: Stage, tasks: Sequence[Task], announce: Callable[[str], None]) -> None:
    """Name the shards that are not what they were when they were indexed."""
    changed = [
        Path(task.payload.shard).name
        for task in tasks
        if (marker := read_marker(stage, task.name)) and marker.input_hash != task.input_hash
    ]
    if changed:
        named = ", ".join(changed[:_NAMED])
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        announce(f"changed since they were indexed, and indexed again: {named}{more}")
