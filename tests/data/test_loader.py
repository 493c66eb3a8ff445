import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_scale.data.decoding import LabelField, NumberField
from ssl_scale.data.image_field import ImageField
from ssl_scale.data.loader import TrainingStream, ValidationStream, dataloader
from ssl_scale.data.mixture import AllSources, Mixture, OneSource, make_mixture
from ssl_scale.data.source import Source
from ssl_scale.data.step_batches import StepBatches
from ssl_scale.errors import DataError, RecipeError
from ssl_scale.types import Batch
from tests.data.shards import digit_samples, write_folder, write_numbers

NUMBER = {"n": NumberField("n")}
SIZES = {"a": [13, 20, 7], "b": [31], "c": [5, 6]}
WEIGHTS = {"a": 3, "b": 2, "c": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sources")
    for name, sizes in SIZES.items():
        write_numbers(made / name, sizes, first=1000 * (ord(name) - ord("a")))
    return made


def sources(folder: Path, **order: int) -> dict[str, Source]:
    return {name: Source(name, folder / name, NUMBER, seed=5, **order) for name in SIZES}


def rows(batch: Batch) -> list[tuple[str, str, int, float]]:
    values = batch.fields["n"].tolist()
    return [
        (batch.source, *row) for row in zip(batch.keys, batch.seeds.tolist(), values, strict=True)
    ]


def global_steps(
    given: Mapping[str, Source], mixture: Mixture, world_size: int, steps: range, **options: int
) -> list[list[list[list[tuple[str, str, int, float]]]]]:
    """Steps > micro-batches > sources > rows of the global batch, put together from the ranks."""
    ranks = [
        TrainingStream(
            given, mixture, rank=rank, world_size=world_size, start_step=steps.start, **options
        )
        for rank in range(world_size)
    ]
    found = []
    for parts in islice(zip(*ranks, strict=True), len(steps)):
        micros = []
        for micro in zip(*parts, strict=True):
            batches = []
            for shares in zip(*micro, strict=True):
                interleaved = zip(*(rows(share) for share in shares), strict=True)
                batches.append([row for group in interleaved for row in group])
            micros.append(batches)
        found.append(micros)
    return found


@pytest.mark.parametrize("per_step", ["one", "all"])
@pytest.mark.parametrize("world_size", [2, 4])
def test_global_batches_are_the_same_for_any_number_of_ranks(
    folder: Path, per_step: str, world_size: int
) -> None:
    given = sources(folder, streams=8, window=6)
    mixture = make_mixture(WEIGHTS, 24, per_step, seed=1)
    steps = range(0, 12)
    assert global_steps(given, mixture, world_size, steps) == global_steps(given, mixture, 1, steps)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    streams=st.integers(1, 70),
    window=st.integers(1, 50),
    start=st.integers(0, 60),
    accumulate=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**31),
)
def test_a_run_that_starts_at_a_step_continues_the_run_that_never_stopped(
    folder: Path, streams: int, window: int, start: int, accumulate: int, seed: int
) -> None:
    mixture = OneSource(WEIGHTS, 8, seed)
    whole = TrainingStream(
        sources(folder, streams=streams, window=window),
        mixture,
        accumulate=accumulate,
        end_step=start + 3,
    )
    resumed = TrainingStream(
        sources(folder, streams=streams, window=window),
        OneSource(WEIGHTS, 8, seed),
        accumulate=accumulate,
        start_step=start,
        end_step=start + 3,
    )
    uninterrupted = [
        step for number, step in zip(range(start + 3), whole, strict=True) if number >= start
    ]
    for expected, found in zip(uninterrupted, resumed, strict=True):
        assert found.step == expected.step
        assert [[rows(b) for b in micro] for micro in found] == [
            [rows(b) for b in micro] for micro in expected
        ]


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_make_the_steps_that_the_main_process_would(
    folder: Path, start_method: str
) -> None:
    stream = TrainingStream(
        sources(folder, streams=4), OneSource(WEIGHTS, 6), rank=1, world_size=2, start_step=3,
        end_step=10,
    )  # fmt: skip
    alone = list(dataloader(stream))
    shared = list(dataloader(stream, num_workers=2, start_method=start_method))
    assert [step.step for step in shared] == list(range(3, 10))
    for one, other in zip(alone, shared, strict=True):
        assert rows(one[0][0]) == rows(other[0][0])


def test_every_sample_comes_once_an_epoch_and_the_state_is_positions(folder: Path) -> None:
    given = sources(folder, streams=8, window=6)
    mixture = OneSource(WEIGHTS, 4)
    stream = TrainingStream(given, mixture, end_step=120)
    seen: dict[str, list[str]] = {name: [] for name in SIZES}
    for step in stream:
        assert stream.positions(step.step) == {name: len(keys) for name, keys in seen.items()}
        for batch in step[0]:
            seen[batch.source].extend(batch.keys)
    for name, keys in seen.items():
        size = sum(SIZES[name])
        for start in range(0, len(keys) - size + 1, size):
            assert len(set(keys[start : start + size])) == size
        assert len(keys) > 2 * size


def test_each_step_of_all_sources_has_a_batch_of_each(folder: Path) -> None:
    stream = TrainingStream(sources(folder), AllSources(WEIGHTS, 12), accumulate=2, end_step=3)
    for step in stream:
        assert len(step) == 2
        for micro in step:
            assert [(batch.source, len(batch)) for batch in micro] == [("a", 3), ("b", 2), ("c", 1)]


def test_what_a_step_cost_travels_with_it(folder: Path) -> None:
    (step,) = TrainingStream(sources(folder), OneSource(WEIGHTS, 8), end_step=1)
    assert step.cost.read_ms > 0
    assert step.cost.decode_ms > 0
    # Members of one byte that begin 1024 bytes after each other, read together.
    assert step.cost.read_bytes == 7 * 1024 + 1
    moved = step.to(torch.device("cpu"))
    assert moved.cost is step.cost
    assert rows(moved[0][0]) == rows(step[0][0])


@pytest.mark.parametrize(
    ("mixture", "options", "message"),
    [
        (
            OneSource(WEIGHTS, 9),
            {"world_size": 2, "accumulate": 1},
            "must be divisible by the number of ranks x accumulate = 2 x 1, but is 9",
        ),
        (OneSource(WEIGHTS, 4), {"world_size": 2, "accumulate": 4}, "= 2 x 4, but is 4"),
        (AllSources(WEIGHTS, 9), {"world_size": 2}, "from source 'a' must be divisible by"),
        (OneSource({"z": 1}, 9), {}, r"'z' is none of \['a', 'b', 'c'\]"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(
    folder: Path, mixture: Mixture, options: dict[str, int], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        TrainingStream(sources(folder), mixture, **options)


@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (2, 0), (3, 0), (3, 2), (4, 0)])
def test_validation_sees_every_sample_once_in_equal_steps(
    folder: Path, world_size: int, workers: int
) -> None:
    given = {name: Source(name, folder / name, NUMBER, shuffle=False) for name in SIZES}
    passes = [
        list(dataloader(ValidationStream(given, 12, rank=rank, world_size=world_size), workers))
        for rank in range(world_size)
    ]
    assert len({len(steps) for steps in passes}) == 1
    seen: Counter[str] = Counter()
    for steps in zip(*passes, strict=True):
        assert len({step[0][0].source for step in steps}) == 1
        for step in steps:
            (batch,) = step[0]
            assert len(batch) == 12 // world_size
            seen.update(batch.keys)
            if "" in batch.keys:
                present = batch.fields["n.present"].tolist()
                assert present == [key != "" for key in batch.keys]
                assert batch.seeds[~batch.fields["n.present"]].eq(0).all()
                assert batch.fields["n"].isnan().tolist() == [key == "" for key in batch.keys]
            else:
                assert "n.present" not in batch.fields
    padding = seen.pop("")
    assert set(seen.values()) == {1}
    assert len(seen) == sum(map(sum, SIZES.values()))
    assert padding == sum(-sum(sizes) % 12 for sizes in SIZES.values())


def test_validation_passes_are_alike_and_need_a_divisible_batch(folder: Path) -> None:
    stream = ValidationStream({"a": Source("a", folder / "a", NUMBER, shuffle=False)}, 8)
    loader = dataloader(stream, num_workers=1)
    first, second = ([rows(step[0][0]) for step in loader] for _ in range(2))
    assert first[:-1] == second[:-1]
    assert len(first) == len(stream) == 5
    with pytest.raises(RecipeError, match="must be divisible by the number of ranks, 3, but is 8"):
        ValidationStream({}, 8, rank=0, world_size=3)
    with pytest.raises(ValueError, match=r"rank must be in \[0, 2\), but is 2"):
        ValidationStream({}, 8, rank=2, world_size=2)


FIELDS = {"image": ImageField("png", size_px=8, channels=1), "label": LabelField("cls", 10)}


def spoiled(folder: Path, count: int, bad: set[int]) -> Source:
    samples = digit_samples(count)
    for number in bad:
        samples[number][1]["png"] = b"no picture"
    write_folder(folder, [samples])
    return Source("digits", folder, FIELDS, seed=2, streams=2, window=8)


def keys_of(stream: TrainingStream) -> list[str]:
    return [key for step in stream for batch in step[0] for key in batch.keys]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_sample_stops_the_run_with_one_clear_line(tmp_path: Path, workers: int) -> None:
    source = spoiled(tmp_path / "digits", 30, {17})
    stream = TrainingStream({"digits": source}, OneSource({"digits": 1}, 4))
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        for _ in islice(dataloader(stream, workers), 20):
            pass
    message = str(caught.value)
    assert message.startswith("source 'digits': ")
    assert "shard-000000.tar: sample 'digit-0017': field 'image' must be a picture" in message
    assert "data.bad_samples" in message
    assert "Traceback" not in message
    assert "\n" not in message
    assert caught.value.exit_code == 2
    assert time.monotonic() - started < 60


def test_steps_before_a_failing_one_are_delivered_first(tmp_path: Path) -> None:
    source = spoiled(tmp_path / "digits", 30, {17})
    stream = TrainingStream({"digits": source}, OneSource({"digits": 1}, 4))

    def until_it_fails(steps: Iterator[StepBatches]) -> list[int]:
        seen = []
        with pytest.raises(DataError):
            for step in steps:
                seen.append(step.step)
        return seen

    alone = until_it_fails(iter(dataloader(stream)))
    assert alone == list(range(len(alone)))
    assert until_it_fails(iter(dataloader(stream, num_workers=2))) == alone


def test_a_tolerated_bad_sample_is_replaced_by_the_next_of_its_block(tmp_path: Path) -> None:
    bad = {3, 17, 18}
    log = tmp_path / "quarantine"
    source = spoiled(tmp_path / "digits", 30, bad)
    mixture = OneSource({"digits": 1}, 5)
    options = {"bad_samples": 0.2, "end_step": 6}
    stream = TrainingStream({"digits": source}, mixture, quarantine=log, rank=0, **options)
    steps = list(stream)
    keys = [key for step in steps for key in step[0][0].keys]
    counted = Counter(keys)
    assert len(keys) == 30
    assert not {f"digit-{number:04d}" for number in bad} & set(keys)
    assert len(counted) == 27
    assert sum(step.cost.substituted for step in steps) == 3
    lines = [json.loads(text) for text in (log / "rank-0.jsonl").read_text().splitlines()]
    assert {line["key"] for line in lines} == {f"digit-{number:04d}" for number in bad}
    for line in lines:
        assert keys[line["position"]] == line["substitute_key"]
        assert line["substitute"] in source.order.rest_of_block(line["position"])
        assert source.key(source.locate(line["substitute"])) == line["substitute_key"]
        assert "must be a picture" in line["reason"]
    # Whoever takes the place keeps its own seed, so it looks as it does in its own turn.
    seeds = {(k, s) for step in steps for k, s in zip(step[0][0].keys, step[0][0].seeds.tolist(),
                                                       strict=True)}  # fmt: skip
    assert len(seeds) == 27


class Lenient(ImageField):
    def decode_into(self, place: np.ndarray, member: bytes, extension: str) -> None:
        place[...] = 0


def test_a_substitute_is_replayed_though_the_sample_was_mended(tmp_path: Path) -> None:
    log = tmp_path / "quarantine"
    source = spoiled(tmp_path / "digits", 30, {17})
    options = {"bad_samples": 0.2, "end_step": 6, "quarantine": log}
    before = keys_of(TrainingStream({"digits": source}, OneSource({"digits": 1}, 5), **options))
    with (log / "rank-0.jsonl").open("a") as file:
        file.write('{"source": "digits", "posi')  # a line torn by a kill
    lines = (log / "rank-0.jsonl").read_text()
    # What decodes depends on the decoder too: this one is content with anything.
    source.fields["image"] = Lenient("png", size_px=8, channels=1)
    again = keys_of(TrainingStream({"digits": source}, OneSource({"digits": 1}, 5), **options))
    assert again == before
    assert (log / "rank-0.jsonl").read_text() == lines
    options.pop("quarantine")
    fresh = keys_of(TrainingStream({"digits": source}, OneSource({"digits": 1}, 5), **options))
    assert "digit-0017" in fresh


def test_past_the_tolerated_share_the_run_stops(tmp_path: Path) -> None:
    source = spoiled(tmp_path / "digits", 60, set(range(0, 60, 3)))
    stream = TrainingStream(
        {"digits": source}, OneSource({"digits": 1}, 5), bad_samples=0.1, end_step=12
    )
    with pytest.raises(DataError, match=r"at most 10\.000% of the samples may be bad .* 9 of \d+"):
        keys_of(stream)


def test_where_nothing_decodes_the_run_stops_at_once(tmp_path: Path) -> None:
    source = spoiled(tmp_path / "digits", 12, set(range(12)))
    stream = TrainingStream({"digits": source}, OneSource({"digits": 1}, 2), bad_samples=1.0)
    with pytest.raises(DataError, match="some sample among . neighbours must decode, but none"):
        next(iter(stream))


def test_a_tolerated_bad_sample_leaves_its_validation_row_empty(tmp_path: Path) -> None:
    source = spoiled(tmp_path / "digits", 10, {4})
    log = tmp_path / "quarantine"
    steps = list(ValidationStream({"digits": source}, 5, bad_samples=0.5, quarantine=log))
    keys = [key for step in steps for key in step[0][0].keys]
    assert sorted(keys) == ["", *(f"digit-{n:04d}" for n in range(10) if n != 4)]
    (line,) = (json.loads(text) for text in (log / "rank-0.jsonl").read_text().splitlines())
    assert (line["key"], line["substitute"]) == ("digit-0004", None)
    with pytest.raises(DataError, match="sample 'digit-0004'"):
        list(ValidationStream({"digits": source}, 5))


def test_a_share_outside_its_range_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"bad_samples must be in \[0, 1\], but is 2"):
        TrainingStream(sources(folder), OneSource(WEIGHTS, 4), bad_samples=2.0)


class Deadly(NumberField):
    """Kills its process in the middle of the stream, as the system does where memory runs out."""

    def decode(self, member: bytes, extension: str) -> float:
        import os
        import signal

        if member == b"20" and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decode(member, extension)


class Buggy(NumberField):
    def decode(self, member: bytes, extension: str) -> float:
        raise ZeroDivisionError("a mistake in the code")


def test_a_killed_worker_ends_the_run_with_a_clear_error(folder: Path) -> None:
    source = Source("a", folder / "a", {"n": Deadly("n")})
    loader = dataloader(TrainingStream({"a": source}, OneSource({"a": 1}, 8)), num_workers=2)
    with pytest.raises(DataError, match="workers must live as long as the run, but one was killed"):
        for _ in islice(loader, 50):
            pass


def test_a_mistake_in_the_code_keeps_its_traceback(folder: Path) -> None:
    source = Source("a", folder / "a", {"n": Buggy("n")})
    loader = dataloader(TrainingStream({"a": source}, OneSource({"a": 1}, 8)), num_workers=1)
    with pytest.raises(ZeroDivisionError, match="(?s)Traceback.*a mistake in the code"):
        next(iter(loader))
