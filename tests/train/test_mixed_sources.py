"""Whatever order sources come in, ranks together train what one process would.

Encoders and objectives of the other sources are absent from a step. A parameter whose exact
gradient is zero, such as the bias of attention's keys, has rounding noise for a gradient, which
Adam blows up to the learning rate: a run in float64 finds such elements, and they are listed here.
"""

import random
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_scale.data.mixture import Begin, Mixture
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.train import mixing
from tests.train import tiny
from tests.train.tiny import Outcome, fit_ranks, make_recipe, outcome_of, train_plainly, worst_loss

pytestmark = pytest.mark.dist
SOURCES = {"a": "pictures", "b": "texts", "c": "classified"}
STEPS = 20
# Adam's own epsilon, a usual rate: nothing that would hide what differs.
SETTINGS = (
    f"train.steps={STEPS}",
    "optim.eps=1.0e-8",
    "optim.lr.peak=1.0e-3",
    "data.sources.classified={data: pictures, fields: [image, label], feeds: [classify]}",
)
CHANCE = random.Random(0)
TURNS = ["baaaaaaa", *("".join(CHANCE.choices("abc", k=STEPS)) for _ in range(3))]
# A key's bias adds the same to all of a query's scores, which softmax takes away again.
EXACTLY_ZERO = {
    "encoders.image.trunk.blocks.0.attention.qkv.bias": slice(8, 16),
    "encoders.text.trunk.blocks.0.attention.qkv.bias": slice(8, 16),
    "objectives.mae.decoder.trunk.blocks.0.attention.qkv.bias": slice(8, 16),
}


class Scripted(Mixture):
    """Sources by turns, as a word says."""

    def __init__(self, turns: str, global_batch: int) -> None:
        self.turns, self.global_batch, self.names = turns, global_batch, tuple(SOURCES.values())
        self.begin = Begin()

    def positions(self, step: int) -> dict[str, int]:
        word = (self.turns * (step // len(self.turns) + 1))[:step]
        return {name: word.count(turn) * self.global_batch for turn, name in SOURCES.items()}

    @property
    def end(self) -> int | None:
        return None


def scripted(turns: str, recipe: Recipe, *_: Any) -> Mixture:
    return Scripted(turns, recipe.data.global_batch)


class Script:
    """Lets a rank's run follow a word."""

    def __init__(self, turns: str) -> None:
        self.turns = turns

    def __call__(self) -> None:
        mixing.mixture_of = partial(scripted, self.turns)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=TURNS[:2])
def turns(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def plain(recipe: Path, turns: str) -> Outcome:
    return plainly(recipe, turns)


def plainly(recipe: Path, turns: str, **options: Any) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "mixture_of", partial(scripted, turns))
        return train_plainly(recipe, *SETTINGS, **options)


def check(
    recipe: Path, plain: Outcome, turns: str, folder: Path, world_size: int, *settings: str
) -> None:
    fit_ranks(recipe, folder, world_size, *SETTINGS, *settings, change=Script(turns))
    found = outcome_of(folder)
    assert len(found.losses) == STEPS and worst_loss(found, plain) < 1e-6
    assert found.weights.keys() == plain.weights.keys()
    differing = {
        name: worst
        for name, values in found.weights.items()
        if (worst := worst_that_counts(name, values, plain.weights[name])) > 1e-6
    }
    assert not differing


def worst_that_counts(name: str, one: Tensor, other: Tensor) -> float:
    difference = (one - other).abs()
    place = EXACTLY_ZERO.get(name.removeprefix("teachers.ema."))
    if place is not None:
        difference[place] = 0
    return float(difference.max())


def test_two_ranks_train_like_one_process(recipe: Path, tmp_path: Path) -> None:
    turns = TURNS[1]
    check(recipe, plainly(recipe, turns), turns, tmp_path, 2, "train.zero=3")


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_stage_trains_like_one_process(
    stage: int,
    world_size: int,
    accumulate: int,
    recipe: Path,
    turns: str,
    plain: Outcome,
    tmp_path: Path,
) -> None:
    settings = (f"train.zero={stage}", f"train.accumulate={accumulate}")
    check(recipe, plain, turns, tmp_path, world_size, *settings)


@pytest.mark.slow
@pytest.mark.parametrize("other_turns", TURNS[2:])
def test_other_orders_train_alike_too(other_turns: str, recipe: Path, tmp_path: Path) -> None:
    plain = plainly(recipe, other_turns)
    check(recipe, plain, other_turns, tmp_path, 4, "train.zero=3", "train.accumulate=2")


def test_float64_finds_the_elements_whose_exact_gradient_is_zero(recipe: Path) -> None:
    largest: dict[str, Tensor] = {}

    def see(gradients: Mapping[str, Tensor]) -> None:
        for name, gradient in gradients.items():
            seen = largest.setdefault(name, torch.zeros_like(gradient))
            torch.maximum(seen, gradient.abs(), out=seen)

    plainly(recipe, TURNS[1], dtype=torch.float64, see=see)
    whole = max(float(gradient.max()) for gradient in largest.values())
    noise = {
        name: torch.nonzero((gradient > 0) & (gradient < 1e-12 * whole)).flatten().tolist()
        for name, gradient in largest.items()
    }
    found = {name: places for name, places in noise.items() if places}
    assert found == {name: [*range(8, 16)] for name in EXACTLY_ZERO}
