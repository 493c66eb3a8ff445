"""What Slurm's commands answer, and what is made of it; the answers are those of Slurm 22.05."""

from pathlib import Path

import pytest
from ssl_scale_launch.slurm.client.jobs import (
    Answer,
    JobState,
    ask_jobs,
    read_accounting,
    read_queue,
)

QUEUE = """\
12_3|FAILED|NonZeroExitCode|0|n1|2026-11-23T20:59:48|
6|PENDING|JobHeldUser|0||N/A|
15|PENDING|BeginTime|1||2026-11-23T21:00:12|
10|RUNNING|None|2|n[1-2]|2026-11-23T20:52:10|
"""
ACCOUNTING = """\
2|FAILED|None|n1|2026-11-23T20:52:08
3|CANCELLED by 1000|None|n1|2026-11-23T20:52:08
4|REQUEUED|None|n1|2026-11-23T20:52:08
6|PENDING|JobHeldUser|None assigned|Unknown
7|CANCELLED by 1000|JobHeldUser|None assigned|None
8_1|COMPLETED|None|n1|2026-11-23T20:52:08
4|COMPLETED|BeginTime|n1|2026-11-23T20:52:14
15|REQUEUED|None|n1|2026-11-23T21:00:05
"""


def put_program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {name} >>{folder}/asked\n{script}\n")
    path.chmod(0o755)


def environment(folder: Path) -> dict[str, str]:
    return {"PATH": f"{folder}:/usr/bin:/bin"}


@pytest.fixture(autouse=True)
def no_other_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # What is executed is found on the caller's own path.
    monkeypatch.setattr("ssl_scale_launch.slurm.client.packages.SYSTEM_PATHS", ())
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")


def test_the_queue_is_read() -> None:
    states = read_queue(QUEUE)
    assert states == {
        "12_3": JobState("FAILED", "NonZeroExitCode", 0, "n1", "2026-11-23T20:59:48"),
        "6": JobState("PENDING", "JobHeldUser", 0, "", ""),
        "15": JobState("PENDING", "BeginTime", 1, "", "2026-11-23T21:00:12"),
        "10": JobState("RUNNING", "", 2, "n[1-2]", "2026-11-23T20:52:10"),
    }
    assert [job for job, state in states.items() if state.is_over] == ["12_3"]


def test_the_accounting_has_a_line_for_each_start_and_the_last_counts() -> None:
    states = read_accounting(ACCOUNTING)
    assert states == {
        "2": JobState("FAILED", "", 0, "n1", "2026-11-23T20:52:08"),
        "3": JobState("CANCELLED", "", 0, "n1", "2026-11-23T20:52:08"),
        "4": JobState("COMPLETED", "", 1, "n1", "2026-11-23T20:52:14"),
        "6": JobState("PENDING", "JobHeldUser", 0, "", ""),
        "7": JobState("CANCELLED", "", 0, "", ""),
        "8_1": JobState("COMPLETED", "", 0, "n1", "2026-11-23T20:52:08"),
        "15": JobState("REQUEUED", "", 0, "n1", "2026-11-23T21:00:05"),
    }
    assert [job for job, state in states.items() if not state.is_over] == ["6", "15"]


def test_what_is_no_answer_tells_of_no_job() -> None:
    assert read_queue("") == {}
    assert read_accounting("\nSlurm accounting storage is disabled\n") == {}


def test_many_jobs_are_one_question_and_only_forgotten_ones_are_looked_up(tmp_path: Path) -> None:
    put_program(tmp_path, "squeue", "echo '6|PENDING|JobHeldUser|0||N/A|'")
    put_program(tmp_path, "sacct", 'case "$*" in *--jobs=4) echo "4|COMPLETED|None|n1|x";; esac')
    answer = ask_jobs(["6", "4"], environment(tmp_path))
    assert {job: state.state for job, state in answer.states.items()} == {
        "6": "PENDING",
        "4": "COMPLETED",
    }
    assert answer.problem == ""
    assert (tmp_path / "asked").read_text() == "squeue\nsacct\n"
    ask_jobs(["6"], environment(tmp_path))
    assert (tmp_path / "asked").read_text() == "squeue\nsacct\nsqueue\n"


def test_a_forgotten_job_is_no_problem_but_a_silent_controller_is(tmp_path: Path) -> None:
    put_program(tmp_path, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    forgotten = "slurm_load_jobs error: Invalid job id specified"
    put_program(tmp_path, "squeue", f"echo '{forgotten}' >&2; exit 1")
    assert ask_jobs(["7"], environment(tmp_path)) == Answer()
    silent = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    put_program(tmp_path, "squeue", f"echo '{silent}' >&2; exit 1")
    assert ask_jobs(["7"], environment(tmp_path)) == Answer({}, silent)


def test_where_slurm_is_not_installed_that_is_said(tmp_path: Path) -> None:
    assert ask_jobs(["7"], {"PATH": str(tmp_path)}).problem == "squeue is not installed here"
    assert ask_jobs([], {"PATH": str(tmp_path)}) == Answer()
