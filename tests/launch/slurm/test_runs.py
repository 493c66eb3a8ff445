"""Runs on a real Slurm: whatever interrupts one, it ends as if nothing had."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from ssl_scale_launch.slurm.client.record import read_launches
from ssl_scale_launch.slurm.sandbox.cluster import SandboxCluster

from tests.launch.slurm.listening import listening_addresses
from tests.launch.slurm.submitted import COMMAND, STEPS, Submitted, assert_equal, submit
from tests.train.tiny import newest

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

HOSTILE = 'it\'s $(touch broken) `touch broken`; touch broken & "x" %j #'
TOKEN = "not-a-well-known-shape-83127"


@pytest.fixture(scope="module")
def undisturbed(
    cluster: SandboxCluster, recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> Submitted:
    """A run that nothing happens to, under a name that a shell must never see."""
    folder = tmp_path_factory.mktemp("runs") / HOSTILE
    profile = folder.parent / "profile.yaml"
    value = "$(touch broken)'; touch broken"
    profile.write_text(json.dumps({"environment": {"HOSTILE": value}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_API_KEY", TOKEN)
        watched = SandboxCluster(cluster.layout.folder, os.environ)
        submitted = submit(
            watched, recipe, folder, f"--profile={profile}", "--", f"--comment={value}"
        )
    submitted.must_complete()
    return submitted


def test_a_submitted_run_completes_and_is_on_record(undisturbed: Submitted) -> None:
    assert (undisturbed.folder / "COMPLETED").read_text() == f"{STEPS}\n"
    assert undisturbed.attempts == 1
    [launch] = read_launches(undisturbed.folder)
    assert launch["job"] == undisturbed.job
    assert launch["command"][0] == "sbatch"
    assert (undisturbed.folder / "launch" / launch["script"]).exists()
    assert {path.name for path in undisturbed.folder.glob("logs/*")} == {
        "rank-0.log",
        "rank-1.log",
        f"slurm-{undisturbed.job}.log",
    }


def test_nothing_that_was_given_is_executed(undisturbed: Submitted, recipe: Path) -> None:
    spool = undisturbed.cluster.layout.folder
    for place in (Path.cwd(), recipe.parent, undisturbed.folder.parent, spool):
        assert list(place.rglob("broken")) == []


def test_a_token_of_the_environment_is_written_nowhere(undisturbed: Submitted) -> None:
    files = [path for path in undisturbed.folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []


def test_a_requeued_run_ends_as_if_undisturbed(
    undisturbed: Submitted, cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(cluster, recipe, tmp_path / "requeued")
    run.wait_for_step(30)
    cluster.command("scontrol", "requeue", run.job)
    run.must_complete()
    assert run.attempts == 2
    assert_equal(run.folder, undisturbed.folder)


def test_ranks_told_to_terminate_save_and_the_job_comes_back(
    undisturbed: Submitted, cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(cluster, recipe, tmp_path / "terminated")
    run.wait_for_step(30)
    cluster.command("scancel", "--signal=TERM", run.job)
    run.must_complete()
    assert "the ranks have stopped after step" in run.log
    assert run.attempts == 2
    assert_equal(run.folder, undisturbed.folder)


def test_what_slurm_tells_the_script_reaches_the_ranks(
    undisturbed: Submitted, cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(cluster, recipe, tmp_path / "told")
    run.wait_for_step(30)
    # To the script and the ranks, as a preemption may come: that is one request, not two.
    cluster.command("scancel", "--full", "--signal=USR1", run.job)
    run.must_complete()
    assert "USR1: asking the ranks to save and stop" in run.log
    assert "the ranks have stopped after step" in run.log
    assert run.attempts == 2
    assert [int(line) for line in (run.folder / "launch/stop_seconds").read_text().split()]
    assert_equal(run.folder, undisturbed.folder)


def test_ranks_of_one_host_meet_at_a_file_and_listen_on_loopback_only(
    undisturbed: Submitted, cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    options = ("--nodes=1", "--processes-per-node=2")
    run = submit(cluster, recipe, tmp_path / "one_host", *options)
    run.wait_for_step(10)
    listening = listening_addresses([run.rank(0).pid, run.rank(1).pid])
    assert {address.rpartition(":")[0] for address in listening} <= {"127.0.0.1"}
    variables = Path(f"/proc/{run.rank(1).pid}/environ").read_bytes().split(b"\0")
    [meeting] = [v for v in variables if v.startswith(b"SSL_SCALE_RENDEZVOUS=file:///")]
    run.must_complete()
    assert_equal(run.folder, undisturbed.folder)
    assert not Path(meeting.decode().partition("=file://")[2]).parent.exists()


def test_a_killed_rank_is_named_and_the_job_comes_back(
    undisturbed: Submitted, cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(cluster, recipe, tmp_path / "killed")
    run.wait_for_step(30)
    run.rank(1).send(signal.SIGKILL)
    run.must_complete()
    assert "rank 1 on n2 failed first, with exit code 137" in run.log
    assert_equal(run.folder, undisturbed.folder)


def test_a_run_that_makes_no_progress_is_given_up(
    cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    never = "--set=train.save_every=1000000"
    run = submit(cluster, recipe, tmp_path / "stuck", "--max-restarts=0", never)
    metrics = run.folder / "metrics.jsonl"
    run.wait_for("first step", lambda: metrics.exists() and b"\n" in metrics.read_bytes())
    run.rank(0).send(signal.SIGKILL)
    assert run.wait_for_end() == "FAILED"
    assert "1 starts in a row brought no new checkpoint" in run.log


def test_a_recipe_that_cannot_work_is_not_started_again(
    cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(recipe.read_text())
    run = submit(cluster, own, tmp_path / "broken_later", "--", "--hold")
    own.write_text(recipe.read_text().replace("momentum: 0.9", "momentun: 0.9"))
    cluster.command("scontrol", "release", run.job)
    assert run.wait_for_end() == "FAILED"
    assert "with exit code 2" in run.log
    assert "to start again would not help" in run.log
    assert not (run.folder / "metrics.jsonl").exists()


def test_a_cancelled_run_saves_and_stays_away_until_it_is_resumed(
    undisturbed: Submitted, cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(cluster, recipe, tmp_path / "cancelled")
    run.wait_for_step(10)
    assert "RUNNING on n[1-2], restarts 0" in ask(cluster, "status", str(run.folder))
    ask(cluster, "cancel", str(run.folder))
    assert run.wait_for_end() == "CANCELLED"
    told = ask(cluster, "status", str(run.folder))
    assert f"job        {run.job}: CANCELLED" in told
    assert f" of {STEPS} (" in told and ", loss " in told
    assert "started 1 times" in told
    assert "cancelled, so the job is not started again" in told
    done = json.loads((newest(run.folder) / "COMMIT").read_bytes())["state"]["done"]
    assert f"the ranks have stopped after step {done}, saved" in run.log
    again = Submitted(cluster, ask(cluster, "resume", str(run.folder)).strip(), run.folder)
    assert again.job != run.job
    again.must_complete()
    assert again.attempts == 2
    assert_equal(run.folder, undisturbed.folder)


def wait_for_ranks(run: Submitted) -> None:
    """Wait until both ranks' programs run, which takes them seconds of imports."""
    run.wait_for("ranks", lambda: all(run.has_rank(number) for number in (0, 1)))


def test_a_stop_before_the_first_step_is_no_failure(
    undisturbed: Submitted, cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(cluster, recipe, tmp_path / "early", "--max-restarts=0", "--exclude-failed")
    wait_for_ranks(run)
    cluster.command("scancel", "--batch", "--signal=USR1", run.job)
    run.must_complete()
    assert "told to stop before they had begun to train" in run.log
    assert "failed first" not in run.log and "from now on without" not in run.log
    assert "told to stop before it had begun to train" in ask(cluster, "status", str(run.folder))
    assert_equal(run.folder, undisturbed.folder)


def test_a_run_that_is_cancelled_before_its_first_step_stays_away(
    cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(cluster, recipe, tmp_path / "cancelled_early")
    wait_for_ranks(run)
    ask(cluster, "cancel", str(run.folder))
    assert run.wait_for_end() == "CANCELLED"
    assert not (run.folder / "metrics.jsonl").exists()


def ask(cluster: SandboxCluster, *words: str) -> str:
    """What one of our commands prints."""
    return cluster.command(COMMAND, *words)


@pytest.mark.slow
def test_a_job_that_nears_its_time_limit_saves_and_comes_back(
    cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    # Slurm looks at time limits every half minute, so these runs must last; side by side.
    run = submit(cluster, recipe, tmp_path / "limited", "--stop-before=60", steps=900)
    other = submit(cluster, recipe, tmp_path / "unlimited", steps=900)
    run.wait_for_step(30)
    began = time.monotonic()
    cluster.command("scontrol", "update", f"JobId={run.job}", "TimeLimit=2")
    run.wait_for("request to stop", lambda: "USR1: asking" in run.log)
    assert time.monotonic() - began < 100
    run.wait_for("second start", lambda: "restart 1" in run.log)
    cluster.command("scontrol", "update", f"JobId={run.job}", "TimeLimit=10")
    run.must_complete()
    other.must_complete()
    assert "the ranks have stopped after step" in run.log
    assert_equal(run.folder, other.folder)
