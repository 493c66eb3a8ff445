"""The engine on real DeepSpeed, at every ZeRO stage, trains like a plain loop in one process.

The tiny recipe takes its sources by turns, so that the heads of one are absent in steps of the
other, and labels one sample in three, so that ranks have unequal numbers of them, often none.
"""

import json
from pathlib import Path

import pytest
import torch

from ssl_scale.checkpoint.reader import Reader
from ssl_scale.errors import SslScaleError
from tests.train.tiny import (
    Outcome,
    fit_ranks,
    make_recipe,
    outcome_of,
    partition_everything,
    train_plainly,
    worst_loss,
    worst_weight,
)

pytestmark = pytest.mark.dist
# The reconstruction is there in the first step only: its decoder is absent in all others.
SOON_ABSENT = "objectives.mae.until=0.1"
LOSSES, WEIGHTS = 1e-6, 1e-6


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def normed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With batch norms, whose statistics are the global batch's."""
    return make_recipe(tmp_path_factory.mktemp("normed"), norm="batch")


@pytest.fixture(scope="module")
def plain(recipe: Path) -> Outcome:
    return train_plainly(recipe, SOON_ABSENT)


def assert_equal(found: Outcome, expected: Outcome) -> None:
    assert worst_loss(found, expected) < LOSSES
    assert worst_weight(found.weights, expected.weights)[0] < WEIGHTS


@pytest.mark.parametrize("world_size", [1, 2])
def test_it_trains_like_one_process(
    world_size: int, recipe: Path, plain: Outcome, tmp_path: Path
) -> None:
    assert plain.losses[-2]["loss/byol"] < plain.losses[0]["loss/byol"]
    fit_ranks(recipe, tmp_path, world_size, SOON_ABSENT)
    assert_equal(outcome_of(tmp_path), plain)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_stage_trains_like_one_process(
    stage: int, world_size: int, accumulate: int, recipe: Path, plain: Outcome, tmp_path: Path
) -> None:
    settings = (f"train.zero={stage}", f"train.accumulate={accumulate}", SOON_ABSENT)
    fit_ranks(recipe, tmp_path, world_size, *settings)
    assert_equal(outcome_of(tmp_path), plain)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_parameters_of_which_nothing_stays_whole(
    accumulate: int, recipe: Path, plain: Outcome, tmp_path: Path
) -> None:
    settings = ("train.zero=3", f"train.accumulate={accumulate}", SOON_ABSENT)
    fit_ranks(recipe, tmp_path, 2, *settings, change=partition_everything)
    assert_equal(outcome_of(tmp_path), plain)


def never_forget() -> None:
    from ssl_scale.train.sharded import ShardedState

    ShardedState.forget_gradients = lambda self: None  # type: ignore[method-assign]


@pytest.mark.slow
def test_without_forgetting_gradients_stage_3_would_train_something_else(
    recipe: Path, plain: Outcome, tmp_path: Path
) -> None:
    fit_ranks(recipe, tmp_path, 2, "train.zero=3", SOON_ABSENT, change=never_forget)
    found = outcome_of(tmp_path)
    # The decoder, trained once, goes on with the gradient of that one step.
    decoders = [
        {name: value for name, value in weights.items() if name.startswith("objectives.mae.")}
        for weights in (found.weights, plain.weights)
    ]
    assert worst_weight(*decoders)[0] > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_batch_norms_and_all_sources_in_one_step(stage: int, normed: Path, tmp_path: Path) -> None:
    settings = (f"train.zero={stage}", "data.per_step=all", "train.steps=5")
    fit_ranks(normed, tmp_path, 2, *settings)
    found, plain = outcome_of(tmp_path), train_plainly(normed, *settings)
    assert worst_loss(found, plain) < 5e-6  # norms divide by small variances
    assert worst_weight(found.weights, plain.weights)[0] < 5e-6


def norms(run_folder: Path) -> list[float]:
    lines = map(json.loads, (run_folder / "metrics.jsonl").read_text().splitlines())
    return [line["grad_norm"] for line in lines if line["kind"] == "train"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_gradients_are_clipped_only_when_asked(stage: int, recipe: Path, tmp_path: Path) -> None:
    settings = ("train.steps=4", f"train.zero={stage}")
    for clip in ("0", "0.1"):
        asked = (*settings, f"optim.clip={clip}")
        fit_ranks(recipe, tmp_path / clip, 2, *asked)
        assert_equal(outcome_of(tmp_path / clip), train_plainly(recipe, *asked))
    assert min(norms(tmp_path / "0")[:3]) > 1, "or clipping at 1, DeepSpeed's default, would pass"


def heads_at(run_folder: Path, step: int) -> dict[str, torch.Tensor]:
    """The text objective's head with its moments, after a step."""
    reader = Reader(run_folder / "checkpoints" / f"step-{step:09d}")
    return {
        f"{kind}/{name}": reader.read_whole(f"{kind}/{name}")
        for kind in ("master", "moment.exp_avg", "moment.exp_avg_sq")
        for name in reader.names(kind)
        if name.startswith("objectives.mlm.")
    }


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
@pytest.mark.parametrize("absent", ["zero", "skip"])
def test_an_absent_objectives_heads(absent: str, stage: int, recipe: Path, tmp_path: Path) -> None:
    # Texts come fourth; then there are three steps without them.
    settings = (f"objectives.mlm.absent={absent}", f"train.zero={stage}", "train.save_every=4")
    fit_ranks(recipe, tmp_path, 2, *settings, max_steps=7)
    before, after = heads_at(tmp_path, 4), heads_at(tmp_path, 7)
    assert before.keys() == after.keys() and len(before) >= 6
    for name, value in before.items():
        assert float(value.abs().max()) > 0, name
        if absent == "skip":
            assert torch.equal(after[name], value), name
        elif name.startswith("moment.exp_avg/"):
            torch.testing.assert_close(after[name], value * 0.9**3, rtol=1e-5, atol=0)
        else:
            assert not torch.equal(after[name], value), name


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_bf16_stays_close_to_fp32(stage: int, recipe: Path, plain: Outcome, tmp_path: Path) -> None:
    fit_ranks(recipe, tmp_path, 2, "train.precision=bf16", f"train.zero={stage}", SOON_ABSENT)
    found = outcome_of(tmp_path)
    assert LOSSES < worst_loss(found, plain) < 0.05
    assert all(value.dtype == torch.float32 for value in found.weights.values())


@pytest.mark.slow
def test_bf16_at_stage_3_trains_alike_on_one_rank_and_two(recipe: Path, tmp_path: Path) -> None:
    # Its weights are drawn in bf16, and are not those of fp32.
    settings = ("train.precision=bf16", "train.zero=3", SOON_ABSENT)
    for world_size in (1, 2):
        fit_ranks(recipe, tmp_path / str(world_size), world_size, *settings)
    one, two = (outcome_of(tmp_path / name) for name in ("1", "2"))
    assert worst_loss(two, one) < 0.05
    assert one.losses[-2]["loss/byol"] < one.losses[0]["loss/byol"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_loss_that_is_not_finite_stops_and_names_samples(
    stage: int, recipe: Path, tmp_path: Path
) -> None:
    settings = ("optim.lr=1.0e+30", f"train.zero={stage}", "train.guard.skips=0")
    with pytest.raises(SslScaleError, match="gradient norm must be finite.*digit-0"):
        fit_ranks(recipe, tmp_path, 2, *settings)


@pytest.mark.slow
def test_every_stage_tells_the_same_gradient_norm(recipe: Path, tmp_path: Path) -> None:
    for stage in range(4):
        settings = (f"train.zero={stage}", "train.accumulate=2", "train.steps=4")
        fit_ranks(recipe, tmp_path / str(stage), 2, *settings)
    told = [norms(tmp_path / str(stage)) for stage in range(4)]
    assert min(told[0]) > 0.1
    for others in told[1:]:
        assert others == pytest.approx(told[0], rel=1e-5)
