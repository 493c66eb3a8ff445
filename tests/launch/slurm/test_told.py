"""What ``status`` and ``list`` tell of a run on a real Slurm, from its queueing to its end."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from ssl_scale_launch.slurm.sandbox.cluster import SandboxCluster

from tests.launch.slurm.submitted import COMMAND, Submitted, submit

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
STEPS = 400


def told(run: Submitted) -> dict[str, Any]:
    """What ``list`` says of a run among others; ``status`` must say the same."""
    listed = json.loads(run.cluster.command(COMMAND, "list", "--json", str(run.folder.parent)))
    [entry] = [entry for entry in listed if entry["folder"] == str(run.folder)]
    assert isinstance(entry, dict)
    return entry


def status(run: Submitted) -> str:
    return run.cluster.command(COMMAND, "status", str(run.folder))


def wait_for_state(run: Submitted, state: str, restarts: int) -> dict[str, Any]:
    """Wait until this is told; returns what is told with it."""
    seen: list[dict[str, Any]] = []

    def is_there() -> bool:
        seen.append(told(run))
        return (seen[-1]["state"], seen[-1]["restarts"]) == (state, restarts)

    run.wait_for(f"{state} with {restarts} restarts", is_there)
    return seen[-1]


def test_the_story_of_a_run_is_true_from_its_queueing_to_its_end(
    cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(cluster, recipe, tmp_path / "run", "--", "--hold", steps=STEPS)
    entry = told(run)
    assert (entry["state"], entry["reason"], entry["step"]) == ("PENDING", "JobHeldUser", 0)
    assert (entry["last_stop"], entry["written"]) == (None, None)

    cluster.command("scontrol", "release", run.job)
    run.wait_for_step(30)
    entry = told(run)
    assert (entry["state"], entry["nodes"], entry["total"]) == ("RUNNING", "n[1-2]", STEPS)
    assert 30 <= entry["step"] < STEPS
    assert 0 < entry["step_s"] < 10
    assert 0 < entry["left_s"] < STEPS * entry["step_s"]
    assert (entry["silent_s"], entry["last_stop"], entry["is_stopping"]) == (None, None, False)
    assert "time left" in status(run)

    cluster.command("scontrol", "requeuehold", run.job)
    entry = wait_for_state(run, "PENDING", 1)
    assert entry["last_stop"]["reason"].startswith("requeued from outside")
    assert f"{run.job}: PENDING" in status(run)
    cluster.command("scontrol", "release", run.job)

    run.wait_for_step(entry["checkpoint"] // 10 * 10 + 20)  # saved every 10 steps
    run.rank(1).send(signal.SIGKILL)
    entry = wait_for_state(run, "RUNNING", 2)
    assert entry["last_stop"]["reason"] == "rank 1 on n2 was killed by SIGKILL"
    assert "rank 1 on n2 was killed by SIGKILL" in cluster.command(COMMAND, "list", str(tmp_path))

    run.must_complete()
    entry = told(run)
    assert (entry["state"], entry["step"], entry["left_s"]) == ("COMPLETED", STEPS, 0)
    # A minute after a rank was killed Slurm may end the job's next step, which has the same number.
    assert entry["attempts"] == entry["restarts"] + 1 >= 3
    assert entry["last_stop"]["reason"] == "rank 1 on n2 was killed by SIGKILL"


def test_a_run_that_gave_up_tells_why_with_the_ranks_error(
    cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(cluster, recipe, tmp_path / "run", "--max-restarts=0", "--", "--hold")
    (tmp_path / "run/checkpoints").write_text("no folder\n")
    cluster.command("scontrol", "release", run.job)
    assert run.wait_for_end() == "FAILED"
    entry = told(run)
    assert entry["state"] == "FAILED"
    assert "failed with exit code" in entry["last_stop"]["reason"]
    assert str(tmp_path / "run/checkpoints") in entry["last_stop"]["error"]
