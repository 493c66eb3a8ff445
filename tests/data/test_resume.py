"""What comes after a resume, as the trainer gets it: whatever the data, the ranks and the workers.

`test_order_properties` says the same of positions alone.
"""

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ssl_scale_data_tools.cli import main

from ssl_scale.data.array_field import ArrayField
from ssl_scale.data.decoding import FieldDecoder, NumberField
from ssl_scale.data.lengths import Lengths
from ssl_scale.data.loader import TrainingStream, dataloader
from ssl_scale.data.mixture import EachSample, Mixture, OneSource
from ssl_scale.data.source import Source
from ssl_scale.data.split import Budget
from ssl_scale.data.step_batches import StepBatches
from ssl_scale.errors import DataError
from tests.data.shards import write_folder, write_numbers
from tests.data_tools.test_lengths import npy

Row = tuple[str, str, int]
NUMBER = {"n": NumberField("n")}


def rows(parts: Iterable[StepBatches]) -> list[Row]:
    """A global batch, put together from the ranks: source, key and seed of each sample."""
    return sorted(
        (batch.source, *row)
        for part in parts
        for micro in part
        for batch in micro
        for row in zip(batch.keys, batch.seeds.tolist(), strict=True)
        if row[0]  # a rank without a sample of a source has a row of padding
    )


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=3)
STEPS = 3


@settings(deadline=None, max_examples=12)
@given(
    sizes=st.tuples(SIZES, SIZES),
    streams=st.integers(1, 40),
    window=st.integers(1, 40),
    world_size=st.integers(1, 64),
    workers=st.integers(0, 8),
    batch=st.integers(1, 40),
    start=st.integers(0, 9),
    seed=st.integers(0, 2**40),
)
def test_any_ranks_and_workers_get_the_batches_of_a_run_that_never_stopped(
    sizes: tuple[list[int], list[int]],
    streams: int,
    window: int,
    world_size: int,
    workers: int,
    batch: int,
    start: int,
    seed: int,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source, of_source in zip("ab", sizes, strict=True):
            write_numbers(folder / source, of_source)

        def stream(rank: int, ranks: int, first: int) -> TrainingStream:
            """As a process of its own makes it."""
            given = {
                name: Source(name, folder / name, NUMBER, seed, streams, window) for name in "ab"
            }
            mixture = EachSample({"a": 2, "b": 1}, batch, seed)
            return TrainingStream(
                given,
                mixture,
                rank=rank,
                world_size=ranks,
                start_step=first,
                end_step=start + STEPS,
            )

        made: dict[int, list[StepBatches]] = {}
        for rank in range(world_size):
            for worker in range(min(max(workers, 1), STEPS)):  # the others have no turn
                own = stream(rank, world_size, start)
                for step in islice(own.steps(), worker, None, max(workers, 1)):
                    made.setdefault(step, []).append(own.make(step))
        alone = {step.step: step for step in stream(0, 1, 0)}
    assert sorted(made) == [*range(start, start + STEPS)]
    for step, parts in made.items():
        assert rows(parts) == rows([alone[step]])
        counts = [sum(len(b) for m in part for b in m if b.keys[0]) for part in parts]
        assert max(counts) - min(counts) <= 1 and sum(counts) == batch
    for source, of_source in zip("ab", sizes, strict=True):
        keys = [k for step in alone.values() for b in step[0] if b.source == source for k in b.keys]
        for epoch in range(0, len(keys), sum(of_source)):
            part = keys[epoch : epoch + sum(of_source)]
            assert len({*part}) == len(part)  # once an epoch; all of them in a whole one


FIELDS: dict[str, dict[str, FieldDecoder]] = {
    "packed": {"points": ArrayField("points", [-1, 3])},
    "bucketed": {"points": ArrayField("points", [-1, 3]), "n": NumberField("n")},
    "even": {"n": NumberField("n")},
}
# Weights as the sizes: an epoch of all sources has 50 steps of 20.
EPOCH = {"packed": 500, "bucketed": 300, "even": 200}
RESUMED = 29


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mixed")
    generator = np.random.default_rng(0)
    for name, size in EPOCH.items():
        samples = [
            (f"{name}-{n:03d}", {"n": str(n).encode(), "points": npy(int(length))})
            for n, length in enumerate(generator.integers(1, 40, size))
        ]
        write_folder(made / name, [samples[start : start + 70] for start in range(0, size, 70)])
        assert main(["lengths", str(made / name), "--extension", "points", "--workers", "0"]) == 0
    return made


def mixed(folder: Path, rank: int, world_size: int, start: int, end: int) -> TrainingStream:
    sources = {
        name: Source(name, folder / name, fields, seed=5, streams=8, window=32)
        for name, fields in FIELDS.items()
    }
    lengths = {name: Lengths(sources[name], "points") for name in ("packed", "bucketed")}
    return TrainingStream(
        sources,
        EachSample(EPOCH, 20, seed=1),
        rank=rank,
        world_size=world_size,
        start_step=start,
        end_step=end,
        budget=Budget(60, lengths, frozenset({"packed"})),
    )


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> list[list[Row]]:
    """An epoch and a half of one process that never stopped."""
    return [rows([step]) for step in mixed(folder, 0, 1, 0, 75)]


def test_an_epoch_of_three_sources_has_each_sample_once(unbroken: list[list[Row]]) -> None:
    seen = [(source, key) for step in unbroken[:50] for source, key, _ in step]
    assert len(seen) == len({*seen}) == sum(EPOCH.values())
    assert all(len(step) == 20 for step in unbroken)


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 2, 3, 4])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_the_batches_after_58_percent_of_an_epoch_are_the_same_everywhere(
    folder: Path, unbroken: list[list[Row]], world_size: int, workers: int
) -> None:
    assert RESUMED / 50 == 0.58
    streams = [mixed(folder, rank, world_size, RESUMED, RESUMED + 9) for rank in range(world_size)]
    # Workers on the last of the ranks will do.
    ranks = [
        list(dataloader(each, workers if rank == world_size - 1 else 0))
        for rank, each in enumerate(streams)
    ]
    steps = list(zip(*ranks, strict=True))
    assert [rows(step) for step in steps] == unbroken[RESUMED : RESUMED + 9]


def flaky(monkeypatch: pytest.MonkeyPatch, failing: Iterator[bool]) -> None:
    """Let reads fail as those of a broken disk do."""
    real = os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        if next(failing):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", pread)


def tolerant(folder: Path, log: Path) -> TrainingStream:
    """It would substitute any sample that is bad."""
    given: Mapping[str, Source] = {"a": Source("a", folder, NUMBER)}
    mixture: Mixture = OneSource({"a": 1}, 5)
    return TrainingStream(given, mixture, end_step=4, bad_samples=1.0, quarantine=log)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_that_errs_once_changes_no_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    write_numbers(tmp_path / "a", [30])
    expected = [rows([step]) for step in tolerant(tmp_path / "a", tmp_path / "log")]
    for first in (0, 1, 3):  # the index's head, a block of it, a sample
        with monkeypatch.context() as patch:
            flaky(patch, iter([False] * first + [True] + [False] * 10_000))
            loader = dataloader(tolerant(tmp_path / "a", tmp_path / "log"), workers)
            found = [(rows([step]), step.cost.substituted) for step in loader]
        assert found == [(step, 0) for step in expected]
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_that_keeps_failing_stops_the_run_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    write_numbers(tmp_path / "a", [30])
    stream = tolerant(tmp_path / "a", tmp_path / "log")
    list(dataloader(stream))  # the index is read
    flaky(monkeypatch, iter([False] + [True] * 10_000))
    seen = []
    with pytest.raises(DataError, match=r"a/shard-000000\.tar: .* failed 3 times .*Input/output"):
        for step in dataloader(stream, workers):
            seen.append(step.step)
    assert seen == list(range(len(seen)))
    assert not (tmp_path / "log").exists()


def test_an_index_that_cannot_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_numbers(tmp_path / "a", [30])
    stream = tolerant(tmp_path / "a", tmp_path / "log")
    flaky(monkeypatch, iter([True] * 10_000))
    for read in (lambda: list(stream), lambda: tolerant(tmp_path / "a", tmp_path / "log")):
        with pytest.raises(
            DataError, match=r"a/dataset\.index: .* failed 3 times .*check the disk"
        ):
            read()
