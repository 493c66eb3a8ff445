"""One more checkpoint is kept: that of the step that validation likes best."""

from pathlib import Path

import pytest

from ssl_scale.checkpoint import layout
from ssl_scale.errors import RecipeError
from ssl_scale.train.best import Best
from ssl_scale.train.records import read_metrics
from tests.train.tiny import fit_ranks, make_recipe


def test_lower_is_better_unless_there_is_a_minus() -> None:
    loss, accuracy = Best("loss"), Best("-accuracy")
    taken = [
        (loss.consider(step, figures), accuracy.consider(step, figures))
        for step, figures in enumerate(
            [
                {"loss": 2.0, "accuracy": 0.5},
                {"loss": 1.0, "accuracy": 0.4},
                {"loss": 1.0, "accuracy": 0.6},
            ]
        )
    ]
    assert taken == [(True, True), (True, False), (False, True)]
    assert (loss.step, accuracy.step) == (1, 2)


def test_a_resumed_run_remembers_unless_it_looks_at_another_figure() -> None:
    before, same, other = Best("loss"), Best("loss"), Best("-accuracy")
    before.consider(7, {"loss": 0.5})
    same.load_state_dict(before.state_dict())
    other.load_state_dict(before.state_dict())
    assert not same.consider(8, {"loss": 0.6}) and same.step == 7
    assert other.step is None


def test_an_unknown_figure_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="held_out/loss/mae"):
        Best("held_out/los/mae").consider(1, {"held_out/loss/mae": 1.0})


@pytest.mark.dist
def test_the_best_step_stays_when_newer_ones_push_older_ones_out(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    text = recipe.read_text()
    validation = (
        "  validation:\n    held_out: {data: pictures, fields: [image, label], feeds: [classify]}\n"
    )
    recipe.write_text(text.replace("data:\n", f"data:\n{validation}", 1))
    # A learning rate that harms more and more: the first steps are the best.
    settings = ("train.steps=6", "train.keep_last=1", "train.save_every=1")
    settings += ("train.validate_every=1", "train.best=held_out/loss/classify")
    settings += ("optim.lr={type: Linear, start: 0.01, end: 3.0}",)
    fit_ranks(recipe, tmp_path / "run", 1, *settings, max_steps=4)
    fit_ranks(recipe, tmp_path / "run", 1, *settings)
    lines = read_metrics(tmp_path / "run/metrics.jsonl")
    losses = {
        line["step"]: line["held_out/loss/classify"]
        for line in lines
        if line["kind"] == "validation"
    }
    best = min(losses, key=lambda step: (losses[step], step))
    kept = {commit["step"] for _, commit in layout.valid(tmp_path / "run/checkpoints")}
    assert best < 6
    assert kept == {best, 6}
