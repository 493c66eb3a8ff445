"""A run that is killed again and again ends as the run that never was."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from ssl_scale.checkpoint.reader import Reader
from tests.distributed import ENVIRONMENT
from tests.torture.table import record
from tests.train.tiny import make_recipe, newest, saved

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

STEPS, SEED, KILLS = 400, 20, 12
PATIENCE_S = 180


def start(recipe: Path, run_folder: Path, stage: int) -> "subprocess.Popen[bytes]":
    options = ["--processes=2", "--run-folder", str(run_folder)]
    settings = [f"train.steps={STEPS}", f"train.zero={stage}", "train.save_every=7"]
    command = [str(Path(sys.executable).parent / "ssl-launch"), "local", *options, str(recipe)]
    with (run_folder.parent / f"{run_folder.name}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, *(f"--set={setting}" for setting in settings)],
            stdout=log,
            stderr=log,
            env={**os.environ, **ENVIRONMENT},
        )


def ranks_of(launcher: int) -> list[int]:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text()
    return [int(word) for word in children.split()]


def lines_written(run_folder: Path) -> int:
    path = run_folder / "metrics.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def wait_until_gone(pids: Sequence[int]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, f"still alive: {[p for p in pids if is_alive(p)]}"
        time.sleep(0.05)


def strike(launcher: "subprocess.Popen[bytes]", run_folder: Path, chance: random.Random) -> str:
    """Once the run has written something new, kill the launcher, a rank, or ask it to stop."""
    before = lines_written(run_folder)
    deadline = time.monotonic() + PATIENCE_S
    while lines_written(run_folder) <= before and launcher.poll() is None:
        assert time.monotonic() < deadline, "the run writes nothing"
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 1))
    how = chance.choice(("launcher", "rank", "stop"))
    ranks = ranks_of(launcher.pid) if launcher.poll() is None else []
    if launcher.poll() is None and ranks:
        if how == "rank":
            os.kill(chance.choice(ranks), signal.SIGKILL)
        else:
            launcher.send_signal(signal.SIGKILL if how == "launcher" else signal.SIGTERM)
    launcher.wait(PATIENCE_S)
    wait_until_gone(ranks)  # no rank outlives its launcher
    return how


@pytest.mark.parametrize("stage", [2, 3])
def test_a_run_killed_at_random_moments_ends_bit_for_bit_like_one_that_was_not(
    stage: int, tmp_path: Path
) -> None:
    chance = random.Random(SEED + stage)
    recipe = make_recipe(tmp_path, norm="batch")
    straight, struck = tmp_path / "straight", tmp_path / "struck"
    assert start(recipe, straight, stage).wait(600) == 0
    counts = {"launcher": 0, "rank": 0, "stop": 0}
    while sum(counts.values()) < KILLS and not (struck / "COMPLETED").exists():
        counts[strike(start(recipe, struck, stage), struck, chance)] += 1
    while not (struck / "COMPLETED").exists():
        assert start(recipe, struck, stage).wait(600) == 0
    assert sum(counts.values()) >= KILLS // 2
    assert Reader(newest(struck)).state["done"] == STEPS
    one, other = saved(straight), saved(struck)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    redone = lines_written(struck) - lines_written(straight)
    record(
        f"kills, ZeRO-{stage}, 2 processes",
        SEED + stage,
        steps=STEPS,
        launchers_killed=counts["launcher"],
        ranks_killed=counts["rank"],
        asked_to_stop=counts["stop"],
        lines_written_again=redone,
        tensors_that_differ=0,
    )
