"""How far a run is, as its folder tells it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ssl_scale_launch.slurm.watch.progress import read_progress


def write_lines(run_folder: Path, *lines: dict[str, Any]) -> None:
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def train(step: int, attempt: int, time: float) -> dict[str, Any]:
    figures = {"loss": 1 / step, "samples_per_s": 100.0 * step}
    return {"kind": "train", "step": step, "attempt": attempt, "time": time} | figures


def write_commit(run_folder: Path, step: int, total: int, saved: float) -> None:
    commit = run_folder / f"checkpoints/step-{step:09d}/COMMIT"
    commit.parent.mkdir(parents=True)
    commit.write_text(json.dumps({"state": {"total": total}}))
    os.utime(commit, (saved, saved))


def test_time_left_is_the_remaining_steps_at_the_pace_of_late(tmp_path: Path) -> None:
    write_lines(tmp_path, train(10, 1, 1000), train(20, 1, 1020), train(30, 1, 1060))
    write_commit(tmp_path, 20, 100, 1025)
    os.utime(tmp_path / "metrics.jsonl", (1060, 1060))
    progress = read_progress(tmp_path)
    assert (progress.step, progress.total, progress.samples_per_s) == (30, 100, 3000)
    assert progress.step_s == pytest.approx(60 / 20)
    assert progress.left_s == pytest.approx(70 * 3)
    assert (progress.written, progress.checkpoint, progress.saved) == (1060, 20, 1025)


def test_what_passed_between_two_starts_slows_no_step(tmp_path: Path) -> None:
    write_lines(tmp_path, train(10, 1, 1000), train(20, 1, 1010), train(30, 2, 90000))
    assert read_progress(tmp_path).step_s == pytest.approx(1)
    write_lines(tmp_path, train(40, 2, 90020))
    assert read_progress(tmp_path).step_s == pytest.approx(30 / 20)


def test_steps_that_are_done_again_do_not_count(tmp_path: Path) -> None:
    write_lines(tmp_path, train(10, 1, 1), train(20, 1, 2), train(30, 1, 3))
    write_lines(tmp_path, {"kind": "superseded", "after_step": 20, "attempt": 2})
    assert read_progress(tmp_path).step == 20
    write_lines(tmp_path, {"kind": "superseded", "after_step": 5, "attempt": 3})
    progress = read_progress(tmp_path)
    assert (progress.step, progress.loss, progress.left_s) == (5, None, None)
    write_lines(tmp_path, {"kind": "superseded", "after_step": -1, "attempt": 4})
    assert read_progress(tmp_path).step == 0


def test_figures_that_are_no_training_are_passed_over(tmp_path: Path) -> None:
    write_lines(tmp_path, train(10, 1, 1), {"kind": "validation", "step": 20, "attempt": 1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('[1]\n{"kind": "train", "step": 30, "at')
    assert read_progress(tmp_path).step == 10


def test_the_recipe_tells_the_steps_until_a_checkpoint_does(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("train: {steps: 90}\n")
    assert read_progress(tmp_path).total == 90
    write_commit(tmp_path, 5, 70, 1)
    assert read_progress(tmp_path).total == 70


@pytest.mark.parametrize("text", ["train: {epochs: 3}", "[", "x", "train: {steps: many}"])
def test_a_recipe_that_names_no_steps_tells_no_total(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    assert read_progress(tmp_path).total is None


def test_a_completed_run_has_no_time_left(tmp_path: Path) -> None:
    write_lines(tmp_path, train(10, 1, 1))
    (tmp_path / "COMPLETED").write_text("10\n")
    assert read_progress(tmp_path).left_s == 0
