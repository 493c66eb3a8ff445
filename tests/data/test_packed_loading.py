"""Batches by tokens: the same samples in every step for any ranks, workers and resume point."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ssl_scale_data_tools.cli import main

from ssl_scale.data.array_field import ArrayField
from ssl_scale.data.decoding import FieldDecoder, NumberField
from ssl_scale.data.lengths import Lengths
from ssl_scale.data.loader import TrainingStream, dataloader
from ssl_scale.data.mixture import EachSample, Ending, Mixture
from ssl_scale.data.source import Source
from ssl_scale.data.split import Budget
from ssl_scale.data.step_batches import StepBatches
from ssl_scale.errors import SslScaleError
from ssl_scale.types import Packed, Ragged
from tests.data.shards import write_folder
from tests.data_tools.test_lengths import npy

FIELDS: dict[str, dict[str, FieldDecoder]] = {
    "packed": {"points": ArrayField("points", [-1, 3])},
    "bucketed": {"points": ArrayField("points", [-1, 3]), "n": NumberField("n")},
    "even": {"n": NumberField("n")},
}
MAX_TOKENS = 60
Rows = list[tuple[str, str, int]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("unlike")
    generator = np.random.default_rng(0)
    for name in FIELDS:
        samples = [
            (f"{name}-{n:03d}", {"n": str(n).encode(), "points": npy(int(length))})
            for n, length in enumerate(generator.integers(1, 40, 50))
        ]
        write_folder(made / name, [samples[:20], samples[20:]])
        assert main(["lengths", str(made / name), "--extension", "points", "--workers", "0"]) == 0
    return made


def stream(folder: Path, rank: int, world_size: int, start: int, end: int) -> TrainingStream:
    sources = {
        name: Source(name, folder / name, fields, seed=5, streams=4, window=8)
        for name, fields in FIELDS.items()
    }
    mixture: Mixture = EachSample(
        {"packed": 5, "bucketed": 3, "even": 2},
        20,
        seed=1,
        endings={"bucketed": Ending("drop", 50)},
    )
    lengths = {name: Lengths(sources[name], "points") for name in ("packed", "bucketed")}
    budget = Budget(MAX_TOKENS, lengths, frozenset({"packed"}))
    return TrainingStream(
        sources,
        mixture,
        rank=rank,
        world_size=world_size,
        start_step=start,
        end_step=end,
        budget=budget,
    )


def rows(steps: Sequence[StepBatches]) -> Rows:
    """All samples of a step, from all ranks."""
    found = [
        (batch.source, *row)
        for step in steps
        for micro in step
        for batch in micro
        for row in zip(batch.keys, batch.seeds.tolist(), strict=True)
        if row[0]
    ]
    return sorted(found)


@pytest.fixture(scope="module")
def alone(folder: Path) -> list[Rows]:
    """The steps of one rank without workers, never interrupted."""
    return [rows([step]) for step in stream(folder, 0, 1, 0, 14)]


@pytest.mark.parametrize(("world_size", "workers"), [(1, 3), (2, 0), (2, 2), (4, 0), (4, 4)])
@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_global_batches_are_the_same_for_any_ranks_workers_and_start(
    folder: Path, alone: list[Rows], world_size: int, workers: int, start: int
) -> None:
    streams = [stream(folder, rank, world_size, start, 14) for rank in range(world_size)]
    # Workers on one of the ranks will do.
    ranks = [
        list(dataloader(each, workers if rank == 0 else 0)) for rank, each in enumerate(streams)
    ]
    steps = list(zip(*ranks, strict=True))
    assert [rows(step) for step in steps] == alone[start:]
    for step in steps:
        shapes = [[[b.source for b in micro] for micro in part] for part in step]
        assert all(shape == shapes[0] for shape in shapes)
        assert len({(part.tokens, part.places) for part in step}) == 1


def test_micro_batches_keep_to_the_budget(folder: Path) -> None:
    seen = set()
    for step in stream(folder, 1, 2, 0, 10):
        for micro in step:
            for batch in micro:
                seen.add(batch.source)
                value = batch.fields.get("points")
                if batch.source == "packed":
                    assert isinstance(value, Packed)
                    total = int(value.lengths.sum())
                    assert total <= MAX_TOKENS and len(value.values) == max(total, 1)
                elif batch.source == "bucketed":
                    assert isinstance(value, Ragged)
                    fits = value.values.shape[0] * value.values.shape[1] <= MAX_TOKENS
                    assert fits or len(batch) == 1
        assert step.drawn == {k: v for k, v in step.drawn.items() if v} and step.tokens > 0
        assert sum(step.drawn.values()) == 20
    assert seen == set(FIELDS)


def test_a_step_that_fails_has_the_shape_of_the_others(folder: Path) -> None:
    own = stream(folder, 1, 2, 3, 4)
    (made,) = own
    padding = own.padding(3, SslScaleError("lost"))
    assert [[(b.source, len(b), sorted(b.fields)) for b in m] for m in padding] == [
        [(b.source, len(b), sorted([*b.fields, *["n.present"] * ("n" in b.fields)])) for b in m]
        for m in made
    ]
    assert rows([padding]) == []
