"""The index of a billion samples: what it takes on disk, to open, and of a node's memory.

A million shards of 900, 1,000 and 1,100 samples, three fields each (see `tests.data.huge`): their
lengths fit into 16 bits, their keys count up. Figures are of fresh processes, and memory is what
they took beyond what one takes that reads a data set of two shards.
"""

import statistics
import tempfile
from pathlib import Path

from tests.benchmarks.run import Row
from tests.data.huge import SAMPLES, measure_first_batch, prepare_batches, write_huge

_START, _BATCH, _ROUNDS = 900_000_000, 64, 5
# Eight ranks with four workers each.
_PROCESSES = 40


def rows() -> list[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory() as name:
        huge = write_huge(Path(name) / "huge")
        prepare_batches(huge, [0, _START], _BATCH)
        size = (huge.folder / "dataset.index").stat().st_size / SAMPLES
        rounds = [
            [measure_first_batch(huge.folder, start, _BATCH) for start in (_START, 0)]
            for _ in range(_ROUNDS)
        ]
    far, near = zip(*rounds, strict=True)
    seconds = statistics.median(one.seconds for one in far)
    ratio = statistics.median(one.seconds / other.seconds for one, other in rounds)
    private = statistics.median(one.private_mib for one in far)
    shared = statistics.median(one.shared_mib for one in far)
    node = shared + _PROCESSES * private
    return [
        _row("index on disk", round(size, 2), "bytes/sample", "at most 12", size <= 12),
        {
            **_row(
                f"open, and read {_BATCH} samples at position 9e8",
                round(seconds, 2), "s", "at most 2 s", seconds <= 2,
            ),
            "against": "the same at position 0",
            "ratio": round(ratio, 2),
        },
        _row("memory that the processes of a node share", round(shared), "MiB", None, None),
        _row("memory of one process's own", round(private, 1), "MiB", None, None),
        _row(
            f"memory of a node with {_PROCESSES} processes",
            round(node), "MiB", "at most 200 MiB", node <= 200,
        ),
    ]  # fmt: skip


def _row(measure: str, value: float, unit: str, goal: str | None, met: bool | None) -> Row:
    return {
        "measure": measure, "value": value, "unit": unit, "against": None, "ratio": None,
        "goal": goal, "met": met,
    }  # fmt: skip
