"""When a run is started again: the rule by itself, then with small programs as its ranks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssl_scale_launch.processes import End
from ssl_scale_launch.restarts import newest_step, run_with_restarts

# A launcher whose two ranks run a program; the launcher's own process, as users have it.
LAUNCHER = """
import os, sys
from functools import partial
from pathlib import Path
from ssl_scale_launch.processes import run_processes
from ssl_scale_launch.restarts import run_with_restarts
program, backoff_s = sys.argv[1:]
start = partial(run_processes, [sys.executable, "-c", program], 2, logs=Path("logs"),
                environment=os.environ, grace_s=0.5)
sys.exit(run_with_restarts(start, Path(), 3, float(backoff_s)))
"""
WAIT_S = 60.0


class Starts:
    """A run whose starts end as told.

    Args:
        run_folder: where it keeps its checkpoints.
        ends: for every start, its end and the checkpoint that it makes, if any.
    """

    def __init__(self, run_folder: Path, ends: list[tuple[int, int | None]]) -> None:
        self.run_folder = run_folder
        self.ends: Iterator[tuple[int, int | None]] = iter(ends)
        self.count = 0

    def __call__(self) -> End:
        self.count += 1
        code, step = next(self.ends)
        if step is not None:
            commit = self.run_folder / f"checkpoints/step-{step:09d}/COMMIT"
            commit.parent.mkdir(parents=True)
            commit.touch()
        return End(code, was_signalled=False)


def test_a_run_that_gets_further_is_started_as_often_as_it_takes(tmp_path: Path) -> None:
    starts = Starts(tmp_path, [(137, 10), (1, 20), (1, 30), (137, 40), (0, 50)])
    assert run_with_restarts(starts, tmp_path, 1, backoff_s=60) == 0
    assert starts.count == 5


def test_a_run_without_progress_is_given_up_and_waits_twice_as_long_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = Starts(tmp_path, [(1, 10), (1, None), (1, None), (137, None)])
    assert run_with_restarts(starts, tmp_path, 2, backoff_s=0.01) == 137
    assert starts.count == 4
    again, first, second, given_up = capsys.readouterr().err.splitlines()
    assert again == "ssl-launch: starting again from step 10"
    assert first.endswith("no new checkpoint since step 10; start 1 of at most 2 in 0.01 s")
    assert second.endswith("start 2 of at most 2 in 0.02 s")
    assert "3 starts in a row brought no new checkpoint beyond step 10" in given_up


def test_a_new_checkpoint_starts_the_count_anew(tmp_path: Path) -> None:
    starts = Starts(tmp_path, [(1, None), (1, 10), (1, None), (1, 20), (1, None), (1, None)])
    assert run_with_restarts(starts, tmp_path, 1, backoff_s=0.0) == 1
    assert starts.count == 6


@pytest.mark.parametrize("code", [0, 2, 3, 75])
def test_an_end_that_is_no_accident_is_the_end(code: int, tmp_path: Path) -> None:
    starts = Starts(tmp_path, [(code, 10)])
    assert run_with_restarts(starts, tmp_path, 5) == code


def test_nothing_is_started_again_unless_asked_for(tmp_path: Path) -> None:
    assert run_with_restarts(Starts(tmp_path, [(137, 10)]), tmp_path, 0) == 137


def test_an_unfinished_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest_step(tmp_path) == 0
    for name in ("step-000000010", "step-000000020.tmp-1", "step-000000030"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "checkpoints/step-000000010/COMMIT").touch()
    (tmp_path / "checkpoints/step-000000020.tmp-1/COMMIT").touch()
    assert newest_step(tmp_path) == 10


def launch(folder: Path, program: str, backoff_s: float) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, program, str(backoff_s)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} never came"
        time.sleep(0.01)


def test_all_ranks_are_started_again_after_one_was_killed(tmp_path: Path) -> None:
    program = """
import os, pathlib, signal, time
rank = os.environ["RANK"]
start = sum(1 for _ in pathlib.Path().glob(f"start-{rank}-*"))
pathlib.Path(f"start-{rank}-{start}").touch()
if start == 0:
    while len(list(pathlib.Path().glob("start-*-0"))) < 2:
        time.sleep(0.01)
    if rank == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
"""
    process = launch(tmp_path, program, 0.01)
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, errors
    assert "rank 1 was killed by SIGKILL" in errors
    names = {path.name for path in tmp_path.glob("start-*")}
    assert names == {"start-0-0", "start-1-0", "start-0-1", "start-1-1"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_somebody_ends_stays_away_even_if_it_fails_to_save(
    number: signal.Signals, tmp_path: Path
) -> None:
    program = f"""
import os, pathlib, signal, sys, time
signal.signal({int(number)}, lambda *_: sys.exit("error: the disk is full"))
pathlib.Path("ready-" + os.environ["RANK"]).touch()
time.sleep(60)
"""
    process = launch(tmp_path, program, 0.01)
    for rank in range(2):
        wait_for(tmp_path / f"ready-{rank}")
    process.send_signal(number)
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert "asking 2 processes to end" in errors
    assert "start 1 of" not in errors


def test_waiting_for_the_next_start_can_be_interrupted(tmp_path: Path) -> None:
    process = launch(tmp_path, "import sys; sys.exit(1)", 60.0)
    errors = ""
    assert process.stderr is not None
    while "start 1 of at most 3 in 60 s" not in errors:
        errors = process.stderr.readline()
        assert errors, "it must say that it waits, but has ended"
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert errors == ""
