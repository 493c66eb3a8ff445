"""Weights that are told while batches are made: exact in every round, the same for any workers."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_scale.data.decoding import NumberField
from ssl_scale.data.loader import TrainingStream, dataloader
from ssl_scale.data.mixture import Begin, EachSample, Mixture, OneSource
from ssl_scale.data.mixture.shares import LONGEST_PERIOD, apportion
from ssl_scale.data.mixture.told import ToldWeights
from ssl_scale.data.source import Source
from ssl_scale.errors import DataError
from tests.data.shards import write_numbers

NAMES = ("a", "b", "c")
BATCH = 7


def shares_of(round_: int) -> dict[str, int]:
    """Weights as a rule might have learned them."""
    chance = random.Random(round_)
    return apportion({name: Fraction(chance.random()) for name in NAMES}, LONGEST_PERIOD)


def told(length: int, first: int, last: int, rounds: int = 64) -> ToldWeights:
    weights = ToldWeights(NAMES, length, rounds)
    for round_ in range(first, last):
        weights.tell(round_ - first, shares_of(round_))
    return weights


def length_of(kind: type[Mixture], every: int) -> int:
    return every * (BATCH if kind is EachSample else 1)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([OneSource, EachSample]), st.integers(1, 12), st.integers(0, 2**40))
def test_counts_are_within_two_of_their_due_throughout_every_round(
    kind: type[Mixture], every: int, seed: int
) -> None:
    mixture = kind(told(length_of(kind, every), 0, 6), BATCH, seed)
    unit = BATCH if kind is OneSource else 1
    due = dict.fromkeys(NAMES, Fraction(0))
    for step in range(6 * every + 1):
        slack = [abs(mixture.positions(step)[name] / unit - due[name]) for name in NAMES]
        # One for the draws of the round, one for what is owing at its start.
        assert max(slack) <= (1 if step % every == 0 else 2)
        for name, share in shares_of(step // every).items():
            due[name] += Fraction(share, LONGEST_PERIOD) * (BATCH // unit)


@pytest.mark.parametrize("kind", [OneSource, EachSample])
def test_a_mixture_begun_at_a_round_goes_on_as_the_one_from_the_start(kind: type[Mixture]) -> None:
    every = 5
    whole = kind(told(length_of(kind, every), 0, 9), BATCH, 1)
    middle = kind(told(length_of(kind, every), 3, 9), BATCH, 1, begin=whole.begin_at(15))
    assert [middle.draw(step) for step in range(15, 40)] == [
        whole.draw(step) for step in range(15, 40)
    ]
    assert any(whole.begin_at(15).owed.values())
    # Begun at a round itself, it tells the same beginnings.
    assert middle.begin_at(30) == whole.begin_at(30) == whole.begin_at(30)
    assert middle.begin_at(15) == whole.begin_at(15)


def test_a_long_round_keeps_to_its_weights_to_a_ten_thousandth() -> None:
    mixture = EachSample(told(40_000_003 * BATCH, 0, 2), BATCH)
    drawn = mixture.positions(40_000_003)
    for name, share in shares_of(0).items():
        assert drawn[name] / (40_000_003 * BATCH) == pytest.approx(share / 1e4, abs=1e-4)


def test_weights_of_tokens_ask_for_fewer_of_the_longer_samples() -> None:
    tokens = {"a": 10.0, "b": 30.0, "c": 60.0}
    weights = ToldWeights(NAMES, 9000, 2, {name: 1 / mean for name, mean in tokens.items()})
    weights.tell(0, {"a": 2000, "b": 3000, "c": 5000})
    drawn = EachSample(weights, 9).positions(1000)
    of_tokens = {name: drawn[name] * mean for name, mean in tokens.items()}
    whole = sum(of_tokens.values())
    assert [of_tokens[name] / whole for name in NAMES] == pytest.approx([0.2, 0.3, 0.5], abs=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sources")
    for place, name in enumerate(NAMES):
        write_numbers(made / name, [20, 30], first=100 * place)
    return made


def stream_of(
    folder: Path, weights: ToldWeights, start: int, end: int, begin: Begin
) -> TrainingStream:
    sources = {name: Source(name, folder / name, {"n": NumberField("n")}) for name in NAMES}
    mixture = EachSample(weights, BATCH, begin=begin)
    return TrainingStream(sources, mixture, start_step=start, end_step=end)


def trained(
    folder: Path, start: int, workers: int, start_method: str | None = None
) -> list[list[str]]:
    """Keys of the steps, where each round is told as late as a trainer does."""
    every, end = 3, 24
    first = start // every
    length = every * BATCH
    begin = EachSample(told(length, 0, 9), BATCH).begin_at(first * every)
    weights = told(length, first, first + 2)
    stream = stream_of(folder, weights, start, end, begin)
    found = []
    for step in dataloader(stream, workers, start_method=start_method):
        found.append([key for batch in step[0] for key in batch.keys])
        if (step.step + 1) % every == 0:
            # The workers are ahead of this round by now, and wait.
            time.sleep(0.02)
            weights.tell(step.step // every + 2 - first, shares_of(step.step // every + 2))
    return found


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_batches_are_the_same_for_any_workers_that_wait_for_weights(folder: Path) -> None:
    alone = trained(folder, 0, 0)
    assert len(alone) == 24
    assert trained(folder, 0, 4) == alone
    # A resume within a round.
    assert trained(folder, 10, 3) == alone[10:]


def test_spawned_workers_hear_of_weights_too(folder: Path) -> None:
    assert trained(folder, 13, 1, "spawn") == trained(folder, 13, 0)


def test_a_worker_that_is_told_nothing_says_so_after_the_steps_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_scale.data.mixture.told._LONGEST_WAIT_S", 0.2)
    stream = stream_of(folder, told(3 * BATCH, 0, 2), 0, 24, Begin())
    seen = []
    with pytest.raises(
        DataError, match=r"within 0\.2 s, but those of round 2 of this start did not"
    ):
        for step in dataloader(stream, 1):
            seen.append(step.step)
    assert seen == [0, 1, 2, 3, 4, 5]


def _train_until_killed(folder: Path, pipe: Connection) -> None:
    weights = told(BATCH, 0, 2)
    loader = dataloader(stream_of(folder, weights, 0, 50, Begin()), num_workers=1)
    steps: Iterator[object] = iter(loader)
    next(steps)
    pipe.send([child.pid for child in multiprocessing.active_children()])
    time.sleep(600)


def test_a_worker_that_waits_does_not_outlive_its_trainer(folder: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    trainer = multiprocessing.get_context("fork").Process(
        target=_train_until_killed, args=(folder, theirs)
    )
    trainer.start()
    (worker,) = ours.recv()
    assert trainer.pid is not None
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.join()
    until = time.monotonic() + 30
    while is_running(worker) and time.monotonic() < until:
        time.sleep(0.05)
    if is_running(worker):
        os.kill(worker, signal.SIGKILL)
        pytest.fail("the worker still waits")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
