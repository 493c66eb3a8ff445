"""Weights that a run learns: from which losses, when they act, and what a resume knows of them."""

import json
from collections.abc import Mapping
from math import exp
from typing import Any

import pytest
import torch

from ssl_scale import dist
from ssl_scale.data.mixture.loss_weights import LossWeights
from ssl_scale.data.mixture.told import ToldWeights
from ssl_scale.errors import SslScaleError
from ssl_scale.train.learning import Learning
from ssl_scale.train.source_losses import SourceLoss, SourceLosses
from tests.distributed import run_ranks

FEEDS = {"a": ("x", "y"), "b": ("y",)}
START = {"a": 3.0, "b": 1.0}
EVERY = 2


class Recording(LossWeights):
    """The rule, which also keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__({"a": 1.0, "b": 0.5}, rate=0.02)
        self.shown: list[tuple[Mapping[str, float], Mapping[str, float]]] = []

    def learn(self, losses: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
        self.shown.append((dict(losses), dict(weights)))
        return super().learn(losses, weights)


def make(first: int = 0, origin: int = 0) -> Learning:
    weights = ToldWeights(("a", "b"), EVERY, 20)
    return Learning(Recording(), weights, EVERY, origin, first, SourceLosses(FEEDS))


def train(learning: Learning, start: int, stop: int) -> list[dict[str, float]]:
    """The weights of the steps, whose losses tell of the step's number."""
    used = []
    for step in range(start, stop):
        used.append(learning.weights_at(step))
        found = [("a", "x", 3 + step, 2), ("a", "y", 5, 4), ("b", "y", 2 * step + 1.23456, 1)]
        rows = [SourceLoss(s, o, torch.tensor(t), torch.tensor(float(n))) for s, o, t, n in found]
        learning.add(rows[dist.rank() :: dist.world_size()])
        learning.end_step(step + 1, {"x": 1.0, "y": 10.0}.__getitem__)
    return used


def test_rules_see_weighted_mean_losses_of_three_digits_and_act_a_round_later() -> None:
    learning = make()
    learning.start(START)
    used = train(learning, 0, 8)
    assert isinstance(learning.rule, Recording)
    # a: x is (3 + 4) / (2 + 2), y is 10 / 8 and counts tenfold; b: 10 (1.23456 + 3.23456) / 2.
    (first, weights), (second, _), *_ = learning.rule.shown
    assert first == {"a": 14.2, "b": 22.3}  # 14.25, to the even digit
    assert second == {"a": 15.2, "b": 62.3}
    assert weights == {"a": 0.75, "b": 0.25}
    assert used[:4] == [{"a": 0.75, "b": 0.25}] * 4
    raised = 0.25 * exp(0.02 * (22.3 - 0.5 - 14.2 + 1.0))
    share = 0.999 * raised / (0.75 + raised) + 0.0005
    assert used[4]["b"] == used[5]["b"] == pytest.approx(share, abs=5e-5)
    assert len(learning.rule.shown) == 4


@pytest.mark.parametrize("done", [4, 5])
def test_learning_goes_on_from_a_checkpoint_within_a_round_too(done: int) -> None:
    straight = make(origin=0)
    straight.start(START)
    expected = train(straight, 0, 12)
    first = make()
    first.start(START)
    train(first, 0, done)
    state: dict[str, Any] = json.loads(json.dumps(first.state(done)))
    again = make(first=first.round(done))
    again.go_on(state)
    assert train(again, done, 12) == expected[done:]
    assert again.state(12) == straight.state(12)
    # To look at the sums for a checkpoint changes nothing.
    assert train(first, done, 12) == expected[done:]


def test_sources_without_a_loss_are_not_shown_and_broken_losses_stop_the_run() -> None:
    losses = SourceLosses(FEEDS)
    nothing, half = torch.tensor(0.0), torch.tensor(0.5)
    losses.add([SourceLoss("a", "x", half, half), SourceLoss("a", "y", nothing, nothing)])
    assert losses.sums() == losses.sums() == {"a": {"x": (0.5, 0.5)}}
    learning = make()
    learning.start(START)
    learning.add([SourceLoss("b", "y", torch.tensor(float("inf")), half)])
    with pytest.raises(SslScaleError, match="loss of source 'b' must be finite .* but is inf"):
        learning.end_step(EVERY, lambda _: 1.0)


def train_as_a_rank() -> tuple[list[dict[str, float]], dict[str, Any]]:
    learning = make()
    learning.start(START)
    used = train(learning, 0, 7)
    if dist.rank() == 1:
        assert isinstance(learning.rule, Recording)
        assert learning.rule.shown == []  # rank 0 decides
    return used, learning.state(7)


@pytest.mark.dist
def test_ranks_that_hold_parts_of_the_losses_learn_what_one_process_does() -> None:
    alone = train_as_a_rank()
    assert run_ranks(train_as_a_rank, 2) == [alone, alone]
