"""Steps that would spoil a run are not taken, on no rank, and leave nothing behind."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_scale import dist
from ssl_scale.checkpoint.reader import Reader
from ssl_scale.errors import SslScaleError
from ssl_scale.recipe.guard_plan import GuardPlan
from ssl_scale.train.guard import Guard
from tests.train.tiny import (
    Outcome,
    fit_ranks,
    make_recipe,
    newest,
    outcome_of,
    train_plainly,
    worst_loss,
    worst_weight,
)

ALL = "data.per_step=all"
BAD_STEP = 3


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With batch norms, whose statistics move before anyone knows of what."""
    return make_recipe(tmp_path_factory.mktemp("tiny"), norm="batch")


def guard(**plan: Any) -> Guard:
    made = Guard(GuardPlan(**plan))
    made.may_go_back = True
    return made


def test_a_loss_far_above_its_like_is_a_spike() -> None:
    watching = guard(spike=5, window=8)
    for loss in (1.0, 1.1, 0.9, 1.05, 0.95, 1.0):
        assert not watching.is_spike(["mae"], loss)
        watching.took(["mae"], loss)
    assert watching.is_spike(["mae"], 2.0) and not watching.is_spike(["mae"], 1.3)
    assert not watching.is_spike(["mae", "mlm"], 2.0), "of other objectives nothing is known"
    assert not watching.is_spike(["mae"], -50.0) and not watching.is_spike(["mae"], math.nan)


def test_a_few_losses_are_no_measure() -> None:
    watching = guard(spike=5, window=8)
    for loss in (1.0, 1.1, 0.9):
        watching.took(["mae"], loss)
    assert not watching.is_spike(["mae"], 1e9)


def test_losses_that_hardly_differ_make_no_spike_of_rounding() -> None:
    watching = guard(spike=5, window=4)
    for _ in range(4):
        watching.took(["mae"], 1.0)
    assert not watching.is_spike(["mae"], 1.004) and watching.is_spike(["mae"], 1.006)


def test_nothing_is_a_spike_unless_asked_for_and_with_a_checkpoint() -> None:
    for watching, may_go_back in ((guard(window=1), True), (guard(spike=5, window=1), False)):
        watching.may_go_back = may_go_back
        watching.took(["mae"], 1.0)
        assert not watching.is_spike(["mae"], 1e9)


def test_it_goes_on_as_it_was() -> None:
    one, other = guard(spike=5, window=3), guard(spike=5, window=3)
    for loss in (1.0, 1.1, 0.9, 1.2):
        one.took(["mae"], loss)
    one.left_out()
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert other.state_dict() == one.state_dict()
    assert other.skipped == 1 and other.state_dict()["recent"] == {"mae": [1.1, 0.9, 1.2]}
    assert other.in_a_row == 1
    other.took(["mae"], 1.0)
    assert (other.skipped, other.in_a_row) == (1, 0)


def change_forward(alter: Callable[[Any, Tensor], Tensor]) -> None:
    from ssl_scale.train.ops import Ops

    forward = Ops._forward

    def altered(self: Ops, micro: int) -> Tensor:
        return alter(self, forward(self, micro))

    Ops._forward = altered  # type: ignore[method-assign]


def a_loss_that_is_no_number() -> None:
    change_forward(
        lambda ops, value: (
            value * math.nan
            if (ops.index, dist.rank()) == (BAD_STEP, dist.world_size() - 1)
            else value
        )
    )


def an_infinite_loss() -> None:
    """Its gradient is like any other."""
    change_forward(
        lambda ops, value: (
            value + math.inf
            if (ops.index, dist.rank()) == (BAD_STEP, dist.world_size() - 1)
            else value
        )
    )


def a_gradient_that_is_no_number() -> None:
    """The root of zero is zero, and its slope is infinite."""
    change_forward(
        lambda ops, value: (
            value + (0 * value).sqrt()
            if (ops.index, dist.rank()) == (BAD_STEP, dist.world_size() - 1)
            else value
        )
    )


def lines(run_folder: Path, name: str = "skipped.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder / name).read_text().splitlines()]


def check_left_out(
    recipe: Path, run_folder: Path, change: Callable[[], None], *settings: str
) -> dict[str, Any]:
    fit_ranks(recipe, run_folder, 2, ALL, *settings, change=change)
    plain = train_plainly(recipe, ALL, *settings, left_out=[BAD_STEP])
    found = outcome_of(run_folder)
    found = Outcome([losses for losses in found.losses if losses], found.weights)
    assert len(found.losses) == 7
    assert worst_loss(found, plain) < 5e-6  # norms divide by small variances
    assert worst_weight(found.weights, plain.weights)[0] < 5e-6
    [line] = lines(run_folder)
    return line


@pytest.mark.dist
@pytest.mark.parametrize("change", [a_loss_that_is_no_number, an_infinite_loss])
def test_a_step_whose_loss_is_not_finite_on_one_rank_is_left_out_on_all(
    change: Callable[[], None], recipe: Path, tmp_path: Path
) -> None:
    line = check_left_out(recipe, tmp_path, change)
    assert (line["step"], line["attempt"], line["outcome"]) == (BAD_STEP + 1, 1, "skipped")
    assert line["ranks_with_losses_not_finite"] == [1]
    assert sum(len(keys) for keys in line["samples"].values()) == 8
    assert all("digit-" in key for keys in line["samples"].values() for key in keys)


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("change", [a_loss_that_is_no_number, a_gradient_that_is_no_number])
def test_it_is_left_out_at_every_stage(
    change: Callable[[], None], stage: int, recipe: Path, tmp_path: Path
) -> None:
    line = check_left_out(recipe, tmp_path, change, f"train.zero={stage}")
    bad_losses = [1] if change is a_loss_that_is_no_number else []
    assert line["ranks_with_losses_not_finite"] == bad_losses


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_in_bf16_nothing_of_the_step_stays(stage: int, recipe: Path, tmp_path: Path) -> None:
    settings = (ALL, f"train.zero={stage}", "train.precision=bf16")
    fit_ranks(recipe, tmp_path, 2, *settings, change=a_gradient_that_is_no_number)
    assert len(lines(tmp_path)) == 1
    assert all(value.isfinite().all() for value in outcome_of(tmp_path).weights.values())


@pytest.mark.dist
def test_a_run_that_takes_no_more_steps_ends_and_names_samples(
    recipe: Path, tmp_path: Path
) -> None:
    settings = ("optim.lr=1.0e+30", "train.guard.skips=2", "train.steps=20")
    with pytest.raises(SslScaleError, match="not been in 3 steps in a row.*digit-0.*optim.lr"):
        fit_ranks(recipe, tmp_path, 2, *settings)
    assert len(lines(tmp_path)) == 3


# Data step 7 spikes, after the checkpoint of 6 steps: data steps 6 and 7 are passed over.
SPIKED = 7
GUARDED = (ALL, "train.save_every=3", "train.guard={spike: 50, window: 2}")


def a_spike() -> None:
    change_forward(lambda ops, value: 1e3 * value if ops.module.progress.drawn == SPIKED else value)


def check_gone_back(found: Outcome, plain: Outcome) -> None:
    assert worst_weight(found.weights, plain.weights)[0] < 5e-6


@pytest.mark.dist
def test_a_spike_sends_the_run_back_past_the_batches_since(recipe: Path, tmp_path: Path) -> None:
    fit_ranks(recipe, tmp_path, 2, *GUARDED, change=a_spike)
    plain = train_plainly(recipe, *GUARDED, passed_over=[6, 7])
    check_gone_back(outcome_of(tmp_path), plain)
    [line] = lines(tmp_path)
    assert (line["step"], line["outcome"]) == (8, "spiked") and float(line["loss"]) > 100
    from ssl_scale.train.records import read_metrics, read_resumes

    told = [m["step"] for m in read_metrics(tmp_path / "metrics.jsonl") if m["kind"] == "train"]
    assert told == [1, 2, 3, 4, 5, 6, 7, 8]
    assert read_resumes(tmp_path / "metrics.jsonl") == []
    state = Reader(newest(tmp_path)).state
    assert (state["done"], state["passed"], state["guard"]["skipped"]) == (8, 2, 1)


@pytest.mark.dist
def test_means_over_steps_do_not_hold_those_that_were_gone_back_over(
    recipe: Path, tmp_path: Path
) -> None:
    settings = (*GUARDED, "train.log_every=2")
    fit_ranks(recipe, tmp_path, 1, "train.zero=0", *settings, change=a_spike)
    losses = train_plainly(recipe, *settings, passed_over=[6, 7]).losses
    mean = (losses[6]["loss/mae"] + losses[7]["loss/mae"]) / 2  # of equally many pictures
    assert outcome_of(tmp_path).losses[-1]["loss/mae"] == pytest.approx(mean, rel=1e-5)


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_it_goes_back_at_every_stage_and_on_after_a_stop(
    workers: int, stage: int, recipe: Path, tmp_path: Path
) -> None:
    settings = (
        *GUARDED, "train.steps=12", f"train.zero={stage}", f"data.num_workers={workers}"
    )  # fmt: skip
    for max_steps in (8, 12):
        fit_ranks(recipe, tmp_path, 2, *settings, max_steps=max_steps, change=a_spike)
    check_gone_back(outcome_of(tmp_path), train_plainly(recipe, *settings, passed_over=[6, 7]))


def spikes_for_ever() -> None:
    change_forward(lambda ops, value: 1e3 * value if ops.module.progress.drawn >= SPIKED else value)


@pytest.mark.slow
@pytest.mark.dist
def test_a_run_that_spikes_again_and_again_ends(recipe: Path, tmp_path: Path) -> None:
    settings = (*GUARDED, "train.guard.rollbacks=2")
    with pytest.raises(SslScaleError, match="has gone back 2 times already"):
        fit_ranks(recipe, tmp_path, 2, *settings, change=spikes_for_ever)
    assert len(lines(tmp_path)) == 3


def rank_1_takes_other_sources() -> None:
    from ssl_scale.data.loader import TrainingStream

    make = TrainingStream.make

    def altered(self: TrainingStream, step: int) -> Any:
        return make(self, step + (step == 2 and dist.rank() == 1))

    TrainingStream.make = altered  # type: ignore[method-assign]


@pytest.mark.dist
@pytest.mark.parametrize("stage", [2, 3])
def test_ranks_that_disagree_are_told_so_before_they_train(
    stage: int, recipe: Path, tmp_path: Path
) -> None:
    # Texts come fourth.
    expected = "step 2: .*rank 0 takes pictures, rank 1 takes texts"
    with pytest.raises(SslScaleError, match=expected):
        fit_ranks(recipe, tmp_path, 2, f"train.zero={stage}", change=rank_1_takes_other_sources)


def test_one_rank_agrees_with_itself() -> None:
    from ssl_scale.train.agreement import Agreement

    own = Agreement([["a"], ["a", "b"]])
    own.check(own.summands, 0)
    assert own.summands != Agreement([["a", "b"], ["a"]]).summands
    assert torch.tensor(own.summands, dtype=torch.float64).tolist() == list(own.summands)
