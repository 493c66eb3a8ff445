"""From a resume to its first batch: a mixture of three sources with packing, far into an epoch.

What counts begins where the program is loaded and ends where the trainer has a batch in hand: the
data sets and their lengths are opened, the mixture finds its place, workers start and read.
Processes are new. Step 0 is measured beside it, in turns: that a run has come far must cost
nothing. The figure is the shortest of several, since what else the machine does only adds to it;
with more workers than cores, what the others do adds too.
"""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from ssl_scale_data_tools.cli import main

from ssl_scale.data.array_field import ArrayField
from ssl_scale.data.lengths import Lengths
from ssl_scale.data.loader import TrainingStream, dataloader
from ssl_scale.data.mixture import EachSample
from ssl_scale.data.source import Source
from ssl_scale.data.split import Budget
from tests.benchmarks.run import Row
from tests.data.shards import write_folder
from tests.data_tools.test_lengths import npy

GOAL_S = 0.2
REPEATS = 21
SIZES = {"web": 12_000, "books": 6_000, "code": 2_000}
SHARD, BATCH, MAX_TOKENS = 500, 64, 2048
RESUMED = round(0.58 * sum(SIZES.values()) / BATCH)


def rows() -> list[Row]:
    """Measure with and without workers."""
    with tempfile.TemporaryDirectory() as name:
        in_a_process(write_sources, Path(name))
        return [row(Path(name), workers) for workers in (0, 2, 4)]


def row(folder: Path, workers: int) -> Row:
    """Of new processes, far and near in turns."""
    rounds = [
        [in_a_process(first_batch_s, folder, start, workers) for start in (RESUMED, 0)]
        for _ in range(REPEATS)
    ]
    value = min(far for far, _ in rounds)
    return {
        "measure": f"first batch after a resume at 58 % of an epoch, {workers} workers",
        "value": round(value, 3),
        "unit": "s",
        "against": "the same at step 0",
        "ratio": round(statistics.median(far / near for far, near in rounds), 2),
        "goal": f"at most {GOAL_S:g} s",
        "met": value <= GOAL_S,
    }


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns in a process that has imported everything, and opened nothing."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(function, *arguments).result()


def write_sources(folder: Path) -> None:
    """Three sources of point clouds of unlike lengths, with these counted."""
    generator = np.random.default_rng(0)
    for name, size in SIZES.items():
        samples = [
            (f"{name}-{n:05d}", {"points": npy(int(length))})
            for n, length in enumerate(generator.integers(1, 200, size))
        ]
        write_folder(
            folder / name, [samples[start : start + SHARD] for start in range(0, size, SHARD)]
        )
        main(["lengths", str(folder / name), "--extension", "points", "--workers", "0"])


def first_batch_s(folder: Path, start: int, workers: int) -> float:
    """Seconds until the trainer has the batch of a step."""
    began = time.perf_counter()
    sources = {
        name: Source(name, folder / name, {"points": ArrayField("points", [-1, 3])})
        for name in SIZES
    }
    lengths = {name: Lengths(source, "points") for name, source in sources.items()}
    stream = TrainingStream(
        sources,
        EachSample(SIZES, BATCH),
        start_step=start,
        budget=Budget(MAX_TOKENS, lengths, frozenset(SIZES)),
    )
    step = next(iter(dataloader(stream, workers)))
    took = time.perf_counter() - began
    assert step.step == start
    return took
