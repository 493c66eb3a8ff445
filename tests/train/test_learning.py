"""Weights that a run learns: from which losses, when they act, and what a resume knows of them."""

import json
from collections.abc import Mapping
from functools import partial
from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_scale import dist
from ssl_scale.data.mixture.loss_weights import LossWeights
from ssl_scale.data.mixture.told import ToldWeights
from ssl_scale.errors import SslScaleError
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.train import feed
from ssl_scale.train.callbacks.sample_log import read_samples
from ssl_scale.train.learning import Learning
from ssl_scale.train.mixing import RunMixture
from ssl_scale.train.source_losses import SourceLoss, SourceLosses
from tests.distributed import run_ranks
from tests.train.kills import die_after
from tests.train.tiny import fit_ranks, make_recipe, outcome_of

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


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("tiny"))


LEARNED = "data.mixture.learned={type: BanditWeights, every: 4, smoothing: 0.5}"


def run_mixture(path: Path, *overrides: str, state: Mapping[str, Any] | None = None) -> RunMixture:
    recipe = read_recipe(path, ["train.steps=40", *overrides])
    return RunMixture(recipe, feed.open_sources(recipe).training, 40, state)


def test_recipes_give_the_first_weights_and_changed_ones_begin_anew(path: Path) -> None:
    first = run_mixture(path, LEARNED)
    assert first.learning is not None
    assert first.learning.weights_at(7) == {"pictures": 0.75, "texts": 0.25}
    assert first.mixture.positions(8) == {"pictures": 48, "texts": 16}
    state = json.loads(json.dumps({"done": 3, "mixture": first.state(3)}))
    assert state["mixture"]["begin"]["step"] == 0
    again = run_mixture(path, LEARNED, state=state)
    assert again.news == [] and again.mixture.draw(6) == first.mixture.draw(6)
    more = "data.sources.more={data: pictures, fields: [text], feeds: [mlm]}"
    changed = run_mixture(path, LEARNED, more, state=state)
    assert changed.news[-1] == "weights are learned afresh, from those that the recipe gives"
    assert changed.learning is not None and changed.learning.origin == 3
    before = first.mixture.positions(3)
    assert changed.mixture.positions(3) == {**before, "more": 0}
    given = run_mixture(path, state=state)
    assert given.learning is None and given.mixture.positions(3) == before
    assert given.news[-1].startswith("learned was {'type': 'BanditWeights'")
    # A recipe that learns nothing describes its mixture as before.
    assert "learned" not in given.described


@pytest.mark.slow
@pytest.mark.dist
def test_a_killed_run_goes_on_with_the_weights_and_samples_of_an_unbroken_one(
    path: Path, tmp_path: Path
) -> None:
    told = (
        LEARNED, "train.steps=36", "train.save_every=5", "data.mixture.unit=sample",
        "callbacks={samples: {type: SampleLog}}",
    )  # fmt: skip
    straight, struck = tmp_path / "straight", tmp_path / "struck"
    fit_ranks(path, straight, 2, *told, "data.num_workers=0")
    workers = "data.num_workers=2"
    # A line a source: killed in a round, two or three steps after a checkpoint.
    change = partial(die_after, struck, 1, 35, 0.0)
    with pytest.raises(RuntimeError, match="ended with -9"):
        fit_ranks(path, struck, 2, *told, workers, change=change)
    fit_ranks(path, struck, 2, *told, workers)
    found = read_samples(struck)
    assert len(found) == 36 and found == read_samples(straight)
    assert weights_of(struck) == weights_of(straight)
    assert outcome_of(straight).losses[-1] == outcome_of(struck).losses[-1]
    texts = [weights["weight/texts"] for weights in weights_of(straight).values()]
    assert texts[:8] == [0.25] * 8
    assert len(set(texts)) >= 7 and all(len(set(texts[n : n + 4])) == 1 for n in range(0, 36, 4))
    # The samples are those that the weights ask for.
    drawn = [sum(source == "texts" for source, _ in found[step]) for step in range(36)]
    assert sum(drawn) == pytest.approx(8 * sum(texts), abs=1)


def weights_of(run_folder: Path) -> dict[int, dict[str, float]]:
    """Step -> weights, as metrics tell; what a kill made void is overwritten."""
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return {
        line["step"]: {n: value for n, value in line.items() if n.startswith("weight/")}
        for line in lines
        if line["kind"] == "train"
    }
