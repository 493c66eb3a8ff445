"""Signals end a run after its step, saved; the next start goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ssl_scale import dist
from ssl_scale.checkpoint.reader import Reader
from ssl_scale.recipe.reading import read_recipe
from tests.distributed import ENVIRONMENT, run_ranks
from tests.train.tiny import PRELOAD, fit_ranks, make_recipe, newest, outcome_of

STOPPED = 75


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("tiny"))


def start_fit(recipe: Path, run_folder: Path, *options: str) -> "subprocess.Popen[str]":
    command = ["ssl_scale.cli.main", "fit", str(recipe), "--run-folder", str(run_folder), *options]
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )


def lines(run_folder: Path) -> list[dict[str, Any]]:
    path = run_folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def steps_written(run_folder: Path) -> list[int]:
    return [line["step"] for line in lines(run_folder) if line["kind"] == "train"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_the_next_start_goes_on(
    number: signal.Signals, recipe: Path, tmp_path: Path
) -> None:
    endless = ("--set", "train.steps=1000000")
    with start_fit(recipe, tmp_path, *endless) as process:
        deadline = time.monotonic() + 120
        while len(steps_written(tmp_path)) < 3 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == STOPPED, told
    done = steps_written(tmp_path)[-1]
    assert f"stopped after step {done}, saved" in told
    assert Reader(newest(tmp_path)).state["done"] == done
    with start_fit(recipe, tmp_path, *endless, "--max-steps", str(done + 2)) as process:
        told = process.communicate(timeout=120)[1]
    assert process.returncode == 0, told
    assert f"continuing {tmp_path} after step {done} (attempt 2)" in told
    assert steps_written(tmp_path) == list(range(1, done + 3))
    assert not (tmp_path / "COMPLETED").exists()


def ask_one_rank_to_stop() -> None:
    """Rank 1 is signalled during its third step, rank 0 never."""
    from ssl_scale.train.ops import Ops

    update = Ops.update_teachers

    def update_and_signal(self: Ops) -> dict[str, float]:
        if self.index == 2 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self)

    Ops.update_teachers = update_and_signal  # type: ignore[method-assign]


@pytest.mark.dist
def test_one_ranks_signal_stops_all_after_the_same_step(recipe: Path, tmp_path: Path) -> None:
    assert fit_ranks(recipe, tmp_path, 2, change=ask_one_rank_to_stop) == [STOPPED, STOPPED]
    # It was heard where the fourth step began.
    assert Reader(newest(tmp_path)).state == Reader(newest(tmp_path)).state | {"done": 4}
    assert fit_ranks(recipe, tmp_path, 2) == [0, 0]
    assert len(outcome_of(tmp_path).losses) == 8
    assert (tmp_path / "COMPLETED").read_text() == "8\n"


def ask_to_stop_before_the_last_step() -> None:
    from ssl_scale.train.ops import Ops

    share_counts = Ops.share_counts

    def ask_and_share(self: Ops) -> None:
        self.stop = self.index == 7
        share_counts(self)

    Ops.share_counts = ask_and_share  # type: ignore[method-assign]


@pytest.mark.dist
def test_a_run_that_is_stopped_at_its_end_is_completed(recipe: Path, tmp_path: Path) -> None:
    settings = ("train.zero=0",)
    assert fit_ranks(recipe, tmp_path, 2, *settings, change=ask_to_stop_before_the_last_step) == [
        0,
        0,
    ]
    assert (tmp_path / "COMPLETED").read_text() == "8\n"
    # Killed between the last checkpoint and the note.
    (tmp_path / "COMPLETED").unlink()
    assert fit_ranks(recipe, tmp_path, 2, *settings) == [0, 0]
    assert (tmp_path / "COMPLETED").read_text() == "8\n"


def start_over(recipe: Path, run_folder: Path) -> None:
    from ssl_scale.train.fit import fit

    fit(read_recipe(recipe, ["train.zero=0"]), run_folder, max_steps=2, resume=False)


def test_a_completed_run_that_starts_over_is_not_completed(recipe: Path, tmp_path: Path) -> None:
    assert fit_ranks(recipe, tmp_path, 1, "train.zero=0") == [0]
    assert (tmp_path / "COMPLETED").exists()
    run_ranks(start_over, 1, recipe, tmp_path, preload=PRELOAD, group=False)
    assert not (tmp_path / "COMPLETED").exists()


@pytest.mark.dist
def test_max_steps_ends_early_and_starting_again_goes_on(recipe: Path, tmp_path: Path) -> None:
    for steps in (2, 2, 3):
        assert fit_ranks(recipe, tmp_path, 1, "train.zero=0", max_steps=steps) == [0]
        assert Reader(newest(tmp_path)).state["done"] == steps
    assert steps_written(tmp_path) == [1, 2, 3]
    assert not dist.is_distributed()
