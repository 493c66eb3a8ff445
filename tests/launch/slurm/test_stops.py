"""Why a run stopped last; the logs are those of real jobs on Slurm 22.05."""

import subprocess
from pathlib import Path

import pytest
from ssl_scale_launch.slurm.client.jobs import JobState
from ssl_scale_launch.slurm.job import script as scripts
from ssl_scale_launch.slurm.watch.rank_logs import last_start
from ssl_scale_launch.slurm.watch.starts import read_starts
from ssl_scale_launch.slurm.watch.stops import UNKNOWN, Stop, stop_of

BEGAN = "ssl-launch: 2026-11-23 21:00:39: job 7, restart 0, on n[1-2]: 2 ranks from step 0 on\n"
AGAIN = "ssl-launch: 2026-11-23 21:00:53: job 7, restart 1, on n[1-2]: 2 ranks from step 0 on\n"
CANCELLED = "slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-23T21:00:46 ***\n"
REQUEUE = CANCELLED.replace(" ***\n", " DUE TO JOB REQUEUE ***\n")
WENT_BACK = """\
ssl-launch: 2026-11-23 21:00:46: no new checkpoint since step 0; start 1 of at most 1 in 1 s
slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-23T21:00:46 DUE TO JOB REQUEUE ***
"""
ENDED_BY_SLURM = """\
ssl-launch: 2026-11-23 21:00:46: TERM: asking the ranks to save and stop
srun: forcing job termination
srun: error: n2: task 1: Exited with exit code 143
ssl-launch: 2026-11-23 21:00:46: rank 1 on n2 failed first, with exit code 143; its output: x
ssl-launch: 2026-11-23 21:00:46: 53G are free on the disk mounted at /
ssl-launch: 2026-11-23 21:00:46: the job is COMPLETING, so it is not started again from here
"""
TIME_LIMIT = (
    "ssl-launch: 2026-11-23 21:01:09: USR1: asking the ranks to save and stop\n"
    "slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-23T21:02:09 DUE TO TIME LIMIT ***\n"
    "ssl-launch: 2026-11-23 21:02:09: TERM: asking the ranks to save and stop\n"
)
NODE_FAILED = """\
srun: error: Node failure on n2
slurmstepd-n2: error: *** JOB 7 ON n2 CANCELLED AT 2026-11-23T21:00:49 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***
ssl-launch: 2026-11-23 21:00:50: TERM: asking the ranks to save and stop
ssl-launch: 2026-11-23 21:00:50: the ranks have stopped after step 0, saved
ssl-launch: 2026-11-23 21:00:50: the job is PENDING, so it is not started again from here
"""  # noqa: E501
SAVED = "ssl-launch: 2026-11-23 21:00:47: the ranks have stopped after step 1200, saved\n"
USR1 = "ssl-launch: 2026-11-23 21:00:46: USR1: asking the ranks to save and stop\n"
TERM = "ssl-launch: 2026-11-23 21:00:46: TERM: asking the ranks to save and stop\n"
CANCELLED_BY_US = (
    USR1
    + SAVED
    + "ssl-launch: 2026-11-23 21:00:48: cancelled, so the job is not started again\n"
    + CANCELLED
)


def failed(code: int) -> str:
    return (
        f"srun: error: n2: task 1: Exited with exit code {code}\n"
        f"ssl-launch: 2026-11-23 21:00:45: rank 1 on n2 failed first, with exit code {code}; its "
        "output: /runs/first/logs/rank-1.log\n"
    )


def last_stop(
    folder: Path, log: str, rank_log: str = "", state: JobState | None = None
) -> Stop | None:
    (folder / "logs").mkdir()
    (folder / "logs/slurm-7.log").write_text(log)
    header = "== 2026-11-23 21:00:39 rank 1 on n2: job 7, restart"
    (folder / "logs/rank-1.log").write_text(
        f"{header} 0\n{rank_log}{header} 1\nerror: of another start\n"
    )
    return stop_of(folder, read_starts(folder)[0], state)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (REQUEUE + ENDED_BY_SLURM, "requeued from outside"),
        (CANCELLED + ENDED_BY_SLURM, "cancelled"),
        (CANCELLED_BY_US, "cancelled; saved after step 1,200"),
        (TIME_LIMIT, "the time limit"),
        (NODE_FAILED, "node n2 failed; saved after step 0"),
        (SAVED + WENT_BACK, "told to save and stop; saved after step 1,200"),
        (
            TERM + SAVED,
            "told to save by TERM (preempted, or by hand); saved after step 1,200",
        ),
        (
            USR1 + SAVED,
            "told to save by USR1 (its time limit was near, or by hand); saved after step 1,200",
        ),
        (REQUEUE.replace("JOB REQUEUE", "PREEMPTION") + TERM, "preempted"),
        (failed(137) + WENT_BACK, "rank 1 on n2 was killed by SIGKILL"),
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks "
            "have been OOM Killed.\n" + failed(137),
            "rank 1 on n2 was killed by SIGKILL (out of memory)",
        ),
        (failed(1) + WENT_BACK, "rank 1 on n2 failed with exit code 1"),
        (
            failed(2) + "ssl-launch: 2026-11-23 21:00:46: to start again would not help\n",
            "rank 1 on n2 failed with exit code 2; to start again would not help",
        ),
        (
            failed(70)
            + "ssl-launch: 2026-11-23 21:00:46: it was stuck: the others waited for rank 0 on n1; "
            "stacks: /runs/first/logs/stuck-rank-*.txt\n",
            "stuck: the others waited for rank 0 on n1",
        ),
        (
            failed(1) + "ssl-launch: 2026-11-23 21:00:46: Slurm hears nothing of n2, so that the "
            "fault lies there\n",
            "node n2 is gone",
        ),
        (
            failed(1) + "ssl-launch: 2026-11-23 21:00:46: 2 starts in a row brought no new "
            "checkpoint beyond step 0, so the job is not started again (--max-restarts); mend\n",
            "given up after 2 starts without a new checkpoint; rank 1 on n2 failed with exit "
            "code 1",
        ),
        (
            "ssl-launch: 2026-11-23 21:00:40: this run starts from /runs/a b, which must be "
            "completed, but is not; resume it first, then this one: ssl-launch resume\n",
            "/runs/a b, which it starts from, is not completed",
        ),
        ("", UNKNOWN),
    ],
)  # fmt: skip
def test_the_reason_of_a_stop(log: str, reason: str, tmp_path: Path) -> None:
    stop = last_stop(tmp_path, BEGAN + log + AGAIN)
    assert stop is not None
    assert stop.reason == reason


def test_a_start_that_came_to_its_end_has_not_stopped(tmp_path: Path) -> None:
    completed = "ssl-launch: 2026-11-23 21:00:53: completed\n"
    assert last_stop(tmp_path, BEGAN + completed) is None


def test_what_slurm_knows_tells_where_no_log_does(tmp_path: Path) -> None:
    state = JobState("OUT_OF_MEMORY", "", 0, "n1", "")
    stop = last_stop(tmp_path, BEGAN, state=state)
    assert stop == Stop("out of memory", "", "2026-11-23 21:00:39")


def test_the_first_error_of_that_start_comes_with_the_reason(tmp_path: Path) -> None:
    said = (
        "[rank1]: Traceback (most recent call last):\n[rank1]:   File x\n[rank1]: ValueError: a\n"
        "Traceback (most recent call last):\n  File y\nRuntimeError: since the other is gone\n"
    )
    stop = last_stop(tmp_path, BEGAN + failed(1) + WENT_BACK + AGAIN, said)
    assert stop == Stop(
        "rank 1 on n2 failed with exit code 1", "ValueError: a", "2026-11-23 21:00:46"
    )


def test_a_stuck_run_tells_what_its_watchdog_found(tmp_path: Path) -> None:
    said = (
        "error: step 3 has not ended in 4 s (train.stuck_after_s): the others wait for rank 0 on "
        "n1, in forward (a/b.py:3); stacks: x; start again to continue\n"
    )
    stop = last_stop(tmp_path, BEGAN + failed(70) + AGAIN, said)
    assert stop is not None
    assert stop.reason == "stuck: the others wait for rank 0 on n1, in forward (a/b.py:3)"


def test_starts_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/slurm-7.log").write_text(BEGAN + REQUEUE + AGAIN + USR1)
    (tmp_path / "logs/slurm-10.log").write_text(BEGAN.replace("job 7", "job 10"))
    starts = read_starts(tmp_path)
    assert [(start.job, start.restart) for start in starts] == [("7", 0), ("7", 1), ("10", 0)]
    assert [start.is_asked_to_stop for start in starts] == [False, True, False]
    assert starts[1].began_at - starts[0].began_at == 14


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"}, "job 7, restart 2"),
        (
            {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "1"},
            "job 8_1, restart 0",
        ),
    ],
)
def test_a_rank_marks_its_log_with_the_job_and_the_restart(
    variables: dict[str, str], place: str, tmp_path: Path
) -> None:
    script = Path(scripts.__file__).with_name("rank.sh")
    done = subprocess.run(
        ["bash", "-c", f"stopped_code=75; {script.read_text()}", "rank", tmp_path, "echo", "hi"],
        capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", "SLURM_PROCID": "1", **variables},
    )  # fmt: skip
    assert last_start(["== 2026-11-23 21:00:39 rank 1 on n2: job 6, restart 0", "old"], place) == []
    assert last_start(done.stdout.splitlines(), place) == ["hi"]
