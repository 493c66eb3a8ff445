"""What is told of runs as a whole: ``ssl-launch status`` and ``list``."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ssl_scale_launch import cli
from ssl_scale_launch.slurm.client.jobs import Answer, JobState
from ssl_scale_launch.slurm.client.owned_process import OwnedProcess
from ssl_scale_launch.slurm.client.record import add_launch
from ssl_scale_launch.slurm.watch.found import find_runs
from ssl_scale_launch.slurm.watch.stops import DIED, UNKNOWN
from ssl_scale_launch.slurm.watch.story import Story, tell
from ssl_scale_launch.slurm.watch.table import table
from ssl_scale_launch.slurm.watch.telling import lines_of
from ssl_scale_launch.slurm.watch.words import duration, figure

from ssl_scale.train.callbacks.watchdog import Watchdog
from ssl_scale.train.lease.holder import Holder
from ssl_scale.train.lease.page import Page
from ssl_scale.train.lease.taking import take

NOW = 2_000_000_000.0
RUNNING = JobState("RUNNING", "", 1, "n[1-2]", "2033-05-18T03:00:00")


def make_run(folder: Path, job: str | None = None) -> Path:
    """A run at step 20 of 100 whose metrics grew last at `NOW`, at 2 s a step."""
    (folder / "logs").mkdir(parents=True)
    lines = [
        {"kind": "train", "step": step, "attempt": 1, "time": 2 * step, "loss": 0.25,
         "samples_per_s": 1234.5}
        for step in (10, 20)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.utime(folder / "metrics.jsonl", (NOW, NOW))
    (folder / "recipe.yaml").write_text("train: {steps: 100}\n")
    (folder / "environment.json").write_text(json.dumps({"attempts": [{}]}))
    if job is not None:
        add_launch(folder, job, "", folder / "launch/job-001.sh", [], folder)
    return folder


def say(folder: Path, job: str, at: float, text: str) -> None:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    with (folder / f"logs/slurm-{job}.log").open("a") as file:
        file.write(f"ssl-launch: {when}: {text}\n")


def beat(folder: Path, rank: int, heard: float, silent_s: float, collective: str | None) -> None:
    path = folder / f"heartbeats/rank-{rank}.json"
    path.parent.mkdir(exist_ok=True)
    content = {
        "rank": rank, "host": f"n{rank + 1}", "seconds_since_step": silent_s,
        "stands": "forward (a/b.py:3)", "collective": collective,
    }  # fmt: skip
    path.write_text(json.dumps(content))
    os.utime(path, (heard, heard))


def hold(folder: Path, holder: Holder) -> None:
    take(folder / "RUNNING", holder, 1, print)


def of(folder: Path, state: JobState | None = None, problem: str = "", now: float = NOW) -> Story:
    launches = folder / "launch.json"
    job = json.loads(launches.read_text())["launches"][-1]["job"] if launches.exists() else None
    answer = Answer({job: state} if job is not None and state is not None else {}, problem)
    return tell(folder, job, answer, now)


def test_a_running_job_tells_its_pace_and_the_time_left(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "7")
    told = lines_of(of(run, RUNNING, now=NOW + 12), NOW + 12)
    assert told == [
        str(run),
        "  state      RUNNING",
        "  job        7: RUNNING on n[1-2], restarts 1",
        "  progress   step 20 of 100 (20%), loss 0.25, 1,234 samples/s; started 1 times",
        "  time left  3 min, at 2 s a step",
        "  last line  12 s ago",
    ]


def test_a_run_whose_steps_do_not_end_is_silent_and_says_whom_it_waits_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "7")
    say(run, "7", NOW - 1000, "job 7, restart 0, on n[1-2]: 2 ranks from step 0 on")
    assert of(run, RUNNING, now=NOW + 119).silent_s is None
    beat(run, 0, NOW + 395, 395, "all_reduce")
    beat(run, 1, NOW + 395, 395, None)
    story = of(run, RUNNING, now=NOW + 400)
    assert story.silent_s == pytest.approx(400)
    assert story.waits_for == "the others wait for rank 1 on n2, in forward (a/b.py:3)"
    assert "but silent: no step has ended for 7 min: the others" in lines_of(story, NOW + 400)[1]
    # Where metrics come rarely, a heartbeat tells that steps end.
    beat(run, 0, NOW + 395, 2, None)
    assert of(run, RUNNING, now=NOW + 400).silent_s is None
    beat(run, 1, NOW - 1, 2, None)
    story = of(run, RUNNING, now=NOW + 900)
    assert story.waits_for.startswith("no sign of life from rank 0 on n1, rank 1 on n2")


def test_a_run_that_has_just_started_again_is_not_silent(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "7")
    beat(run, 0, NOW, 0, None)
    say(run, "7", NOW + 5000, "job 7, restart 1, on n1: 1 ranks from step 0 on")
    assert of(run, RUNNING, now=NOW + 5060).silent_s is None


def test_a_pending_job_tells_why_it_stopped(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "7")
    say(run, "7", NOW - 9, "job 7, restart 1, on n1: 1 ranks from step 0 on")
    say(run, "7", NOW - 3, "TERM: asking the ranks to save and stop")
    assert of(run, RUNNING).is_stopping
    assert of(run, RUNNING).stop is None
    say(run, "7", NOW, "the ranks have stopped after step 20, saved")
    story = of(run, JobState("PENDING", "BeginTime", 1, "", "2033-05-18T04:00:00"))
    assert story.stop is not None
    assert story.stop.reason.startswith("told to save by TERM")
    assert not story.is_stopping
    told = lines_of(story, NOW)
    assert "  job        7: PENDING (BeginTime), not before 2033-05-18T04:00:00, restarts 1" in told
    assert not any("time left" in line for line in told)


def test_a_start_that_has_not_said_anything_yet_is_not_the_one_before(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "7")
    say(run, "7", NOW - 9, "job 7, restart 0, on n1: 1 ranks from step 0 on")
    say(run, "7", NOW - 3, "rank 0 on n1 failed first, with exit code 137; its output: x")
    stop = of(run, RUNNING).stop
    assert stop is not None
    assert stop.reason == "rank 0 on n1 was killed by SIGKILL"


@pytest.mark.parametrize(
    ("state", "problem", "expected"),
    [
        (RUNNING, "", "RUNNING"),
        (JobState("TIMEOUT", "", 0, "", ""), "", "TIMEOUT"),
        (None, "", "STOPPED"),
        (None, "Unable to contact slurm controller", "UNKNOWN"),
    ],
)
def test_the_state_is_slurms_else_the_folders(
    state: JobState | None, problem: str, expected: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", "7")
    story = of(run, state, problem)
    assert story.state == expected
    assert (story.problem in "\n".join(lines_of(story, NOW))) and bool(story.problem) is bool(
        problem
    )
    (run / "COMPLETED").write_text("100\n")
    is_over = state is None or state.is_over
    assert of(run, state, problem).state == ("COMPLETED" if is_over else "RUNNING")


def test_a_job_that_has_not_begun_waits(tmp_path: Path) -> None:
    add_launch(tmp_path, "7", "", tmp_path / "job-001.sh", [], tmp_path)
    assert of(tmp_path).state == "WAITING"


def test_a_run_of_this_machine_lives_as_long_as_its_process(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert of(run).state == "STOPPED"
    with subprocess.Popen(["sleep", "100"]) as child:
        process = OwnedProcess.of("child", child.pid)
        assert process is not None
        held = {**vars(Holder.here(3.0, {})), "pid": child.pid, "started": process.started}
        hold(run, Holder(**held))
        story = of(run)
        child.kill()
    assert (story.state, story.stop) == ("RUNNING", None)
    where = f"process {child.pid} on {socket.gethostname()}"
    assert f"  state      RUNNING by {where}" in lines_of(story, NOW)
    story = of(run)
    assert story.state == "DIED"
    assert story.stop is not None
    assert story.stop.reason == DIED
    assert f"({where} is gone, without a word)" in lines_of(story, NOW)[1]


def test_a_run_of_another_machine_lives_while_it_is_heard_of(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    page = Page.of(Holder(**{**vars(Holder.here(3.0, {})), "host": "elsewhere"}), 5)
    (run / "RUNNING").write_bytes(page.raw)
    os.utime(run / "RUNNING", (NOW, NOW))
    assert of(run, now=NOW + 100).state == "RUNNING"
    assert of(run, now=NOW + 130).state == "DIED"
    (run / "RUNNING").write_bytes(b"{")
    assert of(run).state == "STOPPED"


@pytest.mark.parametrize(
    ("said", "reason", "error"),
    [
        ("stopped after step 20, saved; start again to continue\n",
         "told to save and stop; saved after step 20", ""),
        ("error: no room\n", "rank 0 failed", "error: no room"),
        ("", UNKNOWN, ""),
    ],
)  # fmt: skip
def test_a_run_of_this_machine_tells_why_it_stopped(
    said: str, reason: str, error: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run")
    header = "== 2026-11-23 21:00:39 rank 0: ssl-scale fit tiny\n"
    (run / "logs/rank-0.log").write_text(f"{header}error: old\n{header}{said}")
    stop = of(run).stop
    assert stop is not None
    assert (stop.reason, stop.error) == (reason, error)
    (run / "COMPLETED").write_text("100\n")
    stop = of(run).stop
    assert stop is not None
    assert stop.error == "error: old"


def test_heartbeats_are_those_that_training_leaves(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "7")
    watchdog = Watchdog(run, 0, 2, 60)
    watchdog._beat(30.0)
    path = run / "heartbeats/rank-0.json"
    os.utime(path, (NOW + 30, NOW + 30))
    os.utime(run / "metrics.jsonl", (NOW - 500, NOW - 500))
    story = of(run, RUNNING, now=NOW + 140)
    assert story.silent_s == pytest.approx(140)


def test_runs_are_found_wherever_they_lie_the_newest_first(tmp_path: Path) -> None:
    runs, elsewhere = tmp_path / "runs", tmp_path / "disk/linked"
    for number, folder in enumerate(
        (runs / "plain", runs / "chain/01-a", runs / "plain/inner", elsewhere)
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").write_text("")
        os.utime(folder / "metrics.jsonl", (NOW + number, NOW + number))
    (runs / "linked").symlink_to(elsewhere)
    (runs / "loop").symlink_to(runs)
    (runs / "plain/checkpoints").mkdir()
    (runs / "plain/checkpoints/metrics.jsonl").write_text("")
    (runs / "other").mkdir()
    found = [str(path.relative_to(runs)) for path in find_runs(runs)]
    assert found == ["linked", "plain/inner", "chain/01-a", "plain"]
    assert find_runs(runs / "plain")[1] == runs / "plain"


@pytest.fixture
def without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_scale_launch.slurm.client.packages.SYSTEM_PATHS", ())
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("without_slurm")
def test_runs_are_listed_where_there_is_no_slurm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "runs/on_slurm", "7")
    (make_run(tmp_path / "runs/here") / "COMPLETED").write_text("100\n")
    os.utime(tmp_path / "runs/here/environment.json", (NOW + 1, NOW + 1))
    assert cli.main(["list", str(tmp_path / "runs")]) == 0
    told = capsys.readouterr()
    assert [line.split() for line in told.out.splitlines()] == [
        ["run", "job", "state", "step", "loss", "samples/s", "left", "restarts", "last", "stop"],
        ["here", "-", "COMPLETED", "20/100", "0.25", "1,234", "-", "0", "-"],
        ["on_slurm", "7", "UNKNOWN", "20/100", "0.25", "1,234", "-", "0", "-"],
    ]
    assert "Slurm could not be asked: squeue is not installed here" in told.err


def test_a_reader_that_has_enough_ends_the_command_quietly(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"run-{number}").mkdir()
        (tmp_path / f"run-{number}/metrics.jsonl").touch()
    command = Path(sys.executable).with_name("ssl-launch")
    with subprocess.Popen(
        [command, "list", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.usefixtures("without_slurm")
def test_scripts_read_json_of_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "runs/here")
    entries: list[list[dict[str, Any]]] = []
    for words in (["list", str(tmp_path / "runs")], ["status", str(run)]):
        assert cli.main([*words, "--json"]) == 0
        entries.append(json.loads(capsys.readouterr().out))
    assert entries[0] == entries[1]
    [entry] = entries[0]
    figures = {"folder": str(run), "job": None, "state": "STOPPED", "step": 20, "total": 100}
    assert entry.items() >= (figures | {"left_s": 160.0, "step_s": 2.0, "loss": 0.25}).items()
    assert entry["last_stop"]["reason"] == UNKNOWN


def test_a_folder_without_runs_is_no_error_but_one_that_is_not_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["list", str(tmp_path)]) == 0
    assert "no runs below" in capsys.readouterr().out
    assert cli.main(["list", "--json", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert cli.main(["list", str(tmp_path / "none")]) == 2
    assert cli.main(["status", str(tmp_path), "--watch", "0"]) == 2


@pytest.mark.usefixtures("without_slurm")
def test_watching_tells_it_again_until_it_is_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("ssl_scale_launch.status.time.sleep", sleep)
    assert cli.main(["status", str(run), "--watch", "3"]) == 0
    assert slept == [3, 3]
    assert capsys.readouterr().out.count("step 20 of 100") == 2


def test_a_table_fits_the_terminal() -> None:
    rows = [["run", "n", "why"], ["a/very/long/name/of/a/run", "1", "because of this and that"]]
    assert table(rows, [1], None)[1] == "a/very/long/name/of/a/run  1  because of this and that"
    assert table(rows, [1], 44) == [
        "run                        n  why",
        "a/very/long/name/of/a/run  1  because of th…",
    ]
    assert table(rows, [1], 35)[1] == "…ong/name/of/a/run  1  because of …"
    assert table([], [], 10) == []


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (119, "119 s"), (180, "3 min"), (18600, "5 h 10 min"), (273600, "3 d 4 h")],
)
def test_a_time_is_told_in_two_units_at_most(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_a_figure_has_four_digits() -> None:
    assert [figure(value) for value in (0.123456, 12.3456, 12345.6)] == [
        "0.1235",
        "12.35",
        "12,346",
    ]
