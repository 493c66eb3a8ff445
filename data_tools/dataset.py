"""The last steps of a data set: joining what the tasks left, and ``dataset.json`` at the very end.

Both ``build`` and ``index`` end here.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_scale.data.index import DATASET_FILE, Dataset, write_dataset
from ssl_scale.data.index_block import encode_block
from ssl_scale.data.index_file import Shard
from ssl_scale.data.samples import ShardIndex
from ssl_scale.errors import DataError

from .examine import COLUMNS
from .manifest import ManifestRow, join_parts, write_part
from .work import PRIVATE, Marker, Stage, written_atomically

MANIFEST = "manifest.parquet"
REJECTED = "rejected.jsonl"
PRIVATE_MANIFEST = "{}.manifest.parquet"
PRIVATE_INDEX = "{}.index"


def describe_samples(
    folder: Path, task: str, index: ShardIndex, rows: Sequence[ManifestRow]
) -> dict[str, int]:
    """Write a shard's parts of index and manifest, and count what the whole will need.

    Args:
        folder: where the task writes.
        task: its name.
        index: where the shard's samples are.
        rows: one a sample.
    """
    private = folder / PRIVATE
    private.mkdir(exist_ok=True)
    write_part(private / PRIVATE_MANIFEST.format(task), rows)
    (private / PRIVATE_INDEX.format(task)).write_bytes(encode_block(index))
    has = Counter(f"fact.{name}" for row in rows for name in row.facts)
    return {
        "samples": len(rows),
        **{f"field.{name}": number for name, number in index.counts().items()},
        **has,
    }


def finish_dataset(
    stage: Stage, name: str, markers: Sequence[Marker], rejected: Sequence[Mapping[str, Any]] = ()
) -> Dataset:
    """Write manifest, list of rejected and, last, ``dataset.json``.

    Args:
        stage: all of its tasks are done.
        name: the data set's.
        markers: in the order of the shards.
        rejected: what was set aside before any task.

    Raises:
        DataError: nothing is left.
    """
    counts: Counter[str] = Counter()
    for marker in markers:
        counts.update(marker.counts)
    errors = [*rejected, *(row for marker in markers for row in marker.errors)]
    write_rejected(stage.folder / REJECTED, errors)
    full = [marker for marker in markers if marker.counts["samples"]]
    if not full:
        raise DataError(
            f"{stage.folder}: a data set must have samples, but all {len(errors)} were rejected; "
            f"see {REJECTED}"
        )
    parts = [stage.place(f"{PRIVATE}/{PRIVATE_MANIFEST.format(marker.task)}") for marker in full]
    indexes = [stage.place(f"{PRIVATE}/{PRIVATE_INDEX.format(marker.task)}") for marker in full]
    facts = [column for column in COLUMNS if counts[f"fact.{column}"]]
    join_parts(stage.folder / MANIFEST, parts, facts)
    fields = {
        key.removeprefix("field."): counts[key]
        for key in sorted(counts)
        if key.startswith("field.")
    }
    shards = [Shard(**marker.details["shard"]) for marker in full]
    blocks = (path.read_bytes() for path in indexes)
    return write_dataset(stage.folder, name, shards, blocks, fields)


def write_rejected(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a line for everything that was set aside; no file if there is nothing."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    with written_atomically(path) as handle:
        for row in rows:
            handle.write((json.dumps(row) + "\n").encode("ascii"))


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished data set."""
    return (folder / DATASET_FILE).exists()


def summarize(dataset: Dataset, num_rejected: int) -> str:
    """One line about a finished data set."""
    fields = ", ".join(f"{name} {number:,}" for name, number in dataset.fields.items())
    aside = f"; {num_rejected:,} set aside, see {REJECTED}" if num_rejected else ""
    return (
        f"{dataset.folder}: {dataset.num_samples:,} samples in {len(dataset.shards):,} shards, "
        f"{dataset.shards.total_bytes / 1e6:,.1f} MB ({fields}){aside}"
    )


def unplanned_files(stage: Stage, markers: Sequence[Marker]) -> list[Path]:
    """Files of an earlier plan, or of a killed task, that no marker of now speaks of."""
    planned = {stage.place(name) for marker in markers for name in marker.files}
    planned |= {stage.markers / f"{marker.task}.json" for marker in markers}
    found = [*stage.markers.iterdir(), *stage.folder.glob("shard-*")]
    return sorted(path for path in found if path not in planned)
