"""Under ZeRO, whose flat partitions cut through parameters, optimizers train like one process.

Epsilons are large, as in `tiny`; LARS and LAMB scale matrices only, whose gradients are not zero.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssl_scale.checkpoint.reader import Reader
from tests.train.tiny import (
    Outcome,
    fit_ranks,
    make_recipe,
    outcome_of,
    partition_everything,
    saved,
    system_of,
    train_plainly,
    worst_loss,
    worst_weight,
)

pytestmark = pytest.mark.dist
OPTIMIZERS = {
    "sgd": "{type: SGD, lr: 0.1, nesterov: true, weight_decay: 0.01}",
    "lars": "{type: LARS, lr: 0.2, lr_per: 16, trust: 0.1, weight_decay: 0.01}",
    "lamb": "{type: LAMB, lr: {type: WarmupCosine, peak: 2.0e-2}, eps: 1.0e-2}",
    "decaying": "{type: AdamW, lr: 1.0e-2, eps: 1.0e-2, layer_decay: 0.5, clip: 1.0}",
}
FROZEN = "encoders.image.trunk.blocks.0.feed_forward.*"
GROUPS = (
    f"optim.groups=[{{match: '{FROZEN}', freeze_until: 4}}, "
    "{match: encoders.image.stem.*, freeze_until: 1.0}, "
    "{match: 'objectives.classify.*', lr_scale: 0.5, weight_decay: 0.3}]"
)
STAGES = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("tiny"))


def optimizer(name: str) -> str:
    return f"optim={OPTIMIZERS[name]}"


def assert_equal(found: Outcome, expected: Outcome) -> None:
    assert worst_loss(found, expected) < 2e-6
    assert worst_weight(found.weights, expected.weights)[0] < 2e-6


def check(name: str, stage: int, recipe: Path, folder: Path, *more: str) -> None:
    settings = (optimizer(name), *more)
    fit_ranks(recipe, folder, 2, f"train.zero={stage}", *settings)
    plain = train_plainly(recipe, *settings)
    start = {**system_of(recipe).state_dict()}
    assert worst_weight(plain.weights, start)[0] > 0.01
    assert_equal(outcome_of(folder), plain)


@pytest.mark.parametrize(("name", "stage"), [("lars", 2), ("lamb", 3)])
def test_two_ranks_train_like_one_process(
    name: str, stage: int, recipe: Path, tmp_path: Path
) -> None:
    check(name, stage, recipe, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_stage_trains_like_one_process(
    name: str, stage: int, recipe: Path, tmp_path: Path
) -> None:
    check(name, stage, recipe, tmp_path, "train.accumulate=2")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_parameters_of_which_nothing_stays_whole(name: str, recipe: Path, tmp_path: Path) -> None:
    settings = (optimizer(name), "train.zero=3")
    fit_ranks(recipe, tmp_path, 2, *settings, change=partition_everything)
    assert_equal(outcome_of(tmp_path), train_plainly(recipe, *settings))


def do_not_divide() -> None:
    from ssl_scale.optim.layerwise import Layerwise

    Layerwise.divide = lambda self, runs: None  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_norms_of_flat_partitions_would_train_something_else(
    stage: int, recipe: Path, tmp_path: Path
) -> None:
    settings = (optimizer("lars"), f"train.zero={stage}")
    fit_ranks(recipe, tmp_path, 2, *settings, change=do_not_divide)
    plain = train_plainly(recipe, *settings)
    assert worst_weight(outcome_of(tmp_path).weights, plain.weights)[0] > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_bf16_trains_alike_on_one_rank_and_two(
    name: str, stage: int, recipe: Path, tmp_path: Path
) -> None:
    settings = (optimizer(name), "train.precision=bf16", f"train.zero={stage}")
    for world_size in (1, 2):
        fit_ranks(recipe, tmp_path / str(world_size), world_size, *settings)
    one, two = (outcome_of(tmp_path / name) for name in ("1", "2"))
    assert worst_loss(two, one) < 0.02


def resumed(folder: Path, recipe: Path, *settings: str) -> None:
    for name, parts in (("straight", (6,)), ("parted", (3, 6))):
        for max_steps in parts:
            fit_ranks(recipe, folder / name, 2, *settings, max_steps=max_steps)
    straight, parted = saved(folder / "straight"), saved(folder / "parted")
    assert straight.keys() == parted.keys()
    assert any(name.startswith("moment.") for name in straight)
    assert not [name for name in straight if not torch.equal(straight[name], parted[name])]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["sgd", "lars", "lamb"])
def test_it_goes_on_bit_for_bit(name: str, stage: int, recipe: Path, tmp_path: Path) -> None:
    resumed(tmp_path, recipe, optimizer(name), f"train.zero={stage}", GROUPS)


@pytest.mark.slow
def test_another_stage_and_world_size_take_over_the_moments(recipe: Path, tmp_path: Path) -> None:
    for name in ("sgd", "lars", "lamb"):
        folder = tmp_path / name
        fit_ranks(recipe, folder, 2, optimizer(name), "train.zero=2", max_steps=4)
        fit_ranks(recipe, folder, 1, optimizer(name), "train.zero=3")
        assert_equal(outcome_of(folder), train_plainly(recipe, optimizer(name)))


def state_at(run_folder: Path, step: int, prefix: str) -> dict[str, Tensor]:
    """Values and moments of the parameters whose names begin so, after a step."""
    reader = Reader(run_folder / "checkpoints" / f"step-{step:09d}")
    kinds = ("master", "value", "moment.exp_avg", "moment.exp_avg_sq")
    return {
        f"{kind}/{name}": reader.read_whole(f"{kind}/{name}")
        for kind in kinds
        for name in reader.names(kind)
        if name.startswith(prefix)
    }


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_frozen_groups_do_not_move_and_nobody_else_notices(
    stage: int, recipe: Path, tmp_path: Path
) -> None:
    settings = ("optim.clip=0.5", "optim.lr=1.0e-2", GROUPS)
    saves = (f"train.zero={stage}", "train.save_every=1", "train.keep_last=10")
    fit_ranks(recipe, tmp_path, 2, *settings, *saves)
    start = system_of(recipe).state_dict()
    for step in (1, 3, 4):
        kept = state_at(tmp_path, step, FROZEN[:-1])
        assert any(name.startswith("master/") for name in kept)
        for name, value in kept.items():
            kind, _, parameter = name.partition("/")
            wanted = start[parameter] if kind == "master" else torch.zeros(())
            assert torch.equal(value, wanted.expand_as(value)), (step, name)
    moved = state_at(tmp_path, 8, FROZEN[:-1])
    assert any(name.startswith("moment.exp_avg/") for name in moved)
    for name, value in moved.items():
        kind, _, parameter = name.partition("/")
        assert kind != "master" or not torch.equal(value, start[parameter]), name
    stem = state_at(tmp_path, 8, "encoders.image.stem.")
    assert {name.partition("/")[0] for name in stem} == {"value"}
    for name, value in stem.items():
        assert torch.equal(value, start[name.removeprefix("value/")])
    assert_equal(outcome_of(tmp_path), train_plainly(recipe, *settings))
