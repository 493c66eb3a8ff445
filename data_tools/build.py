"""Planning and running a build: which sample goes into which shard, and what to do where.

The plan is a function of the listing alone, so shards have the same bytes for any number of workers
and after any number of kills.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from ssl_scale.data.index import DATASET_FILE, Dataset
from ssl_scale.errors import DataError

from .dataset import finish_dataset, is_finished, unplanned_files
from .examine import Check
from .raw import Listing, RawSample, Rejected, hash_samples, lacks
from .shards import VERSION, Packing, pack_shard
from .work import WORK_FOLDER, Executor, Marker, Stage, Task, find_done, hash_of, run_stage
from .work import work_folder as hold_folder


@dataclass(frozen=True)
class ShardSize:
    """When a shard is full: at so many samples or so many bytes, whichever is given."""

    samples: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Args:
        name: the data set's.
        shard_size: when a shard is full.
        shuffle: order samples by a hash of their keys rather than as listed, so that a shard holds
            a bit of everything.
        check: how closely samples are looked at.
        skip_bad: set bad samples aside rather than stop.
        overwrite: replace a finished data set.
        time_limit_s: longest time for a shard.
    """

    name: str
    shard_size: ShardSize
    shuffle: bool = True
    check: Check = Check.DECODE
    skip_bad: bool = False
    overwrite: bool = False
    time_limit_s: float | None = None


def require_extensions(listing: Listing, extensions: Sequence[str]) -> Listing:
    """Move samples that lack one of the extensions to the rejected."""
    kept: list[RawSample] = []
    rejected = list(listing.rejected)
    for sample in listing.samples:
        reason = lacks(sample, extensions)
        if reason is None:
            kept.append(sample)
        else:
            rejected.append(Rejected(sample.where, reason, sample.key))
    return Listing(kept, rejected, listing.num_ignored)


def require_good(listing: Listing, where: Path, skip_bad: bool) -> None:
    """Stop at files that cannot be used, and where there is nothing to build.

    Raises:
        DataError: naming the first.
    """
    if listing.rejected and not skip_bad:
        first, more = listing.rejected[0], len(listing.rejected) - 1
        others = f"; and {more:,} more" if more else ""
        raise DataError(
            f"{where}: {first.where}: {first.reason}{others} (--on-bad skip sets such things aside)"
        )
    if not listing.samples:
        raise DataError(
            f"{where}: must hold samples, but holds none ({len(listing.rejected):,} files or rows "
            f"rejected, {listing.num_ignored:,} hidden files ignored)"
        )


def split_samples(
    samples: Sequence[RawSample], fractions: Mapping[str, float]
) -> dict[str, list[RawSample]]:
    """Part samples by a hash of their keys: a key stays in its split however the data grows.

    Raises:
        DataError: the fractions do not add up to 1.
    """
    if not math.isclose(sum(fractions.values()), 1.0, abs_tol=1e-6):
        raise DataError(f"splits must add up to 1, but add up to {sum(fractions.values()):g}")
    parts: dict[str, list[RawSample]] = {name: [] for name in fractions}
    names, edges, edge = list(fractions), [], 0.0
    for name in names:
        edge += fractions[name]
        edges.append(edge)
    edges[-1] = 1.0
    for sample in samples:
        place = _hash(sample.key, "split") / 2**64
        parts[next(name for name, end in zip(names, edges, strict=True) if place < end)].append(
            sample
        )
    return parts


def plan_shards(samples: Sequence[RawSample], root: Path, options: BuildOptions) -> list[Task]:
    """One task a shard."""
    if options.shuffle:
        samples = sorted(samples, key=lambda sample: (_hash(sample.key, "order"), sample.key))
    return [
        Task(
            name=name,
            payload=Packing(name, str(root), part, options.check, options.skip_bad),
            input_hash=hash_samples(part),
            size=len(part),
        )
        for number, part in enumerate(_cut(samples, options.shard_size))
        for name in (f"shard-{number:06d}",)
    ]


def build(
    tasks: Sequence[Task],
    output: Path,
    rejected: Sequence[Rejected],
    options: BuildOptions,
    executor: Executor,
    workers: int,
    progress: Callable[[Task, Marker], None],
    announce: Callable[[str], None],
) -> tuple[Dataset, int]:
    """Pack all shards and finish the data set.

    Args:
        tasks: from `plan_shards`.
        output: its folder.
        rejected: what the listing set aside.
        options: how to build.
        executor: where to run.
        workers: on how many workers; 0 runs in this process.
        progress: told of each shard.
        announce: told of work that was done before.

    Returns:
        The data set, and how many samples, files and rows were set aside.

    Raises:
        DataError: a sample is bad, or the output holds something else.
    """
    _require_free(output, options.overwrite)
    config = hash_of(options.check, options.skip_bad, [task.name for task in tasks])
    stage = Stage("build", output, pack_shard, config, VERSION, options.time_limit_s)
    with hold_folder(output):
        if is_finished(output) and any(find_done(stage, task) is None for task in tasks):
            if not options.overwrite:
                raise DataError(
                    f"{output} must be free, but holds a data set that was built from other input "
                    "or with other options; name another folder, or replace it with --overwrite"
                )
            (output / DATASET_FILE).unlink()
        markers = run_stage(stage, tasks, executor, workers, progress, announce)
        for path in unplanned_files(stage, markers):
            path.unlink()
        rows = [asdict(row) for row in rejected]
        dataset = finish_dataset(stage, options.name, markers, rows)
    return dataset, len(rows) + sum(marker.counts["rejected"] for marker in markers)


def _require_free(output: Path, overwrite: bool) -> None:
    if not output.exists() or (output / WORK_FOLDER / "build").exists():
        return
    if not output.is_dir():
        raise DataError(f"{output} must be a folder, but is a file")
    found = sorted(entry.name for entry in output.iterdir() if entry.name != WORK_FOLDER)
    if found:
        raise DataError(
            f"{output} must be a new folder, an empty one, or a build that was interrupted, but "
            f"holds {found[0]!r}"
        )


def _hash(key: str, purpose: str) -> int:
    return xxhash.xxh3_64_intdigest(f"{purpose}\0{key}".encode())


def _cut(samples: Sequence[RawSample], size: ShardSize) -> Iterator[tuple[RawSample, ...]]:
    part: list[RawSample] = []
    total = 0
    for sample in samples:
        too_many = size.samples is not None and len(part) >= size.samples
        too_large = size.bytes is not None and total + sample.tar_bytes > size.bytes
        if part and (too_many or too_large):
            yield tuple(part)
            part, total = [], 0
        part.append(sample)
        total += sample.tar_bytes
    if part:
        yield tuple(part)
