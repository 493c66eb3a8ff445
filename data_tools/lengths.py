"""Counting how long samples are: one task a shard, then one column for the data set."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_scale.data.array_field import ArrayField
from ssl_scale.data.audio_field import AudioField
from ssl_scale.data.decoding import UndecodableError
from ssl_scale.data.index import read_dataset
from ssl_scale.data.lengths import ABSENT, LENGTHS_FOLDER, length_files, seal_of
from ssl_scale.data.source import Source
from ssl_scale.data.text_field import TextField
from ssl_scale.errors import DataError

from .work import (
    PRIVATE,
    Executor,
    Marker,
    Produced,
    Stage,
    Task,
    run_stage,
    work_folder,
    write_atomically,
    written_atomically,
)

VERSION = 1
_UNCUT = 2**31


@dataclass(frozen=True)
class Measuring:
    """The input of one task.

    Args:
        folder: of the data set.
        shard: its number.
        extensions: of the members that are measured; a sample's first one counts.
        tokenizer: file of the tokenizer that counts texts; None for what is no text.
        entry: which array of ``.npz`` files, or text of JSON; None for all there is.
        sample_rate_hz: at which sound is counted; None for what is no sound.
    """

    folder: str
    shard: int
    extensions: tuple[str, ...]
    tokenizer: str | None
    entry: str | None = None
    sample_rate_hz: int | None = None

    def field(self) -> TextField | AudioField | ArrayField:
        """What counts."""
        if self.sample_rate_hz is not None:
            return AudioField(self.extensions, self.sample_rate_hz, max_s=_UNCUT)
        if self.tokenizer is None:
            return ArrayField(self.extensions, shape=[-1], entry=self.entry)
        entry = self.entry
        return TextField(self.extensions, self.tokenizer, _UNCUT, begin=None, end=None, entry=entry)


def measure_shard(measuring: Measuring, folder: Path) -> Produced:
    """Write the lengths of a shard's samples; see `Stage`."""
    field = measuring.field()
    source = Source("lengths", measuring.folder, {"measured": field}, shuffle=False)
    sizes = np.array(source.dataset.sizes, dtype=np.int64)
    start = int(sizes[: measuring.shard].sum())
    counts = np.full(int(sizes[measuring.shard]), ABSENT, dtype=np.uint32)
    bad = 0
    for row, ref in enumerate(source.locate_all(start + np.arange(len(counts)))):
        member = source.fetch(ref)["measured"]
        if member is None:
            continue
        try:
            count = field.count(*member)
        except UndecodableError:
            bad += 1
        else:
            counts[row] = ABSENT if count is None else count
    part = folder / PRIVATE / f"{measuring.shard:06d}.npy"
    part.parent.mkdir()
    np.save(part, counts, allow_pickle=False)
    known = counts[counts != ABSENT].astype(np.int64)
    total = int(known.sum())
    return Produced({"samples": len(counts), "measured": len(known), "bad": bad, "total": total})


def plan_lengths(
    folder: Path,
    extensions: Sequence[str],
    tokenizer: Path | None,
    entry: str | None = None,
    sample_rate_hz: int | None = None,
) -> list[Task]:
    """One task a shard.

    Raises:
        DataError: the data set cannot be opened, or has no such member.
    """
    dataset = read_dataset(folder)
    names = tuple(name.lstrip(".").lower() for name in extensions)
    if not any(dataset.fields.get(name, 0) for name in names):
        found = ", ".join(f".{name}" for name in sorted(dataset.fields))
        raise DataError(
            f"{folder}: --extension must name members that are there, but is {' '.join(names)}; "
            f"there are {found}"
        )
    counter = None if tokenizer is None else str(tokenizer)
    return [
        Task(
            name=f"{number:06d}",
            payload=Measuring(str(folder), number, names, counter, entry, sample_rate_hz),
            input_hash=shard.xxh3,
            size=shard.samples,
        )
        for number, shard in enumerate(dataset.shards)
    ]


def write_lengths(
    folder: Path,
    tasks: Sequence[Task],
    executor: Executor,
    workers: int,
    progress: Callable[[Task, Marker], None],
    announce: Callable[[str], None],
) -> tuple[Path, dict[str, int]]:
    """Measure all shards, join them and seal the column.

    Returns:
        The column's file, and how many samples there are, are measured and are bad, and the total
        of their lengths.
    """
    first: Measuring = tasks[0].payload
    name = first.field().length_name
    stage = Stage(name, folder / LENGTHS_FOLDER, measure_shard, name, VERSION)
    column, seal = length_files(folder, name)
    with work_folder(stage.folder):
        markers = run_stage(stage, tasks, executor, workers, progress, announce)
        seal.unlink(missing_ok=True)
        with written_atomically(column) as file:
            parts = [stage.markers / f"{task.name}.npy" for task in tasks]
            np.save(file, np.concatenate([np.load(part) for part in parts]), allow_pickle=False)
        write_atomically(seal, json.dumps(seal_of(read_dataset(folder))) + "\n")
    keys = ("samples", "measured", "bad", "total")
    return column, {key: sum(marker.counts[key] for marker in markers) for key in keys}
