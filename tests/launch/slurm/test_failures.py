"""Whatever fails on a real Slurm, a run ends as if nothing had, and its log says what it was."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssl_scale_launch.slurm.sandbox.cluster import CONTROLLER, SandboxCluster

from tests.launch.slurm.submitted import COMMAND, LOOK_S, Submitted, assert_equal, submit

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def three_nodes(make_cluster: Callable[[int], SandboxCluster]) -> SandboxCluster:
    """A node more than a run needs."""
    return make_cluster(3)


@pytest.fixture
def healed(three_nodes: SandboxCluster) -> Iterator[SandboxCluster]:
    yield three_nodes
    for node in ("n1", "n2", "n3"):
        if not three_nodes.server(node).is_alive:
            three_nodes.start_again(node)
    deadline = time.monotonic() + 60
    while three_nodes.idle_nodes() < 3:
        assert time.monotonic() < deadline, three_nodes.command("sinfo", "--Node", "--long")
        time.sleep(LOOK_S)


def test_a_node_that_loses_power_is_replaced(
    undisturbed: Submitted, healed: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(healed, recipe, tmp_path / "power")
    run.wait_for_step(30)
    healed.cut_power("n2")
    run.must_complete()
    assert "Slurm hears nothing of n2, so that the fault lies there" in run.log
    assert "restart 1, on n[1,3]" in run.log
    assert_equal(run.folder, undisturbed.folder)


def test_the_node_of_the_script_itself_may_lose_power(
    undisturbed: Submitted, healed: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(healed, recipe, tmp_path / "first")
    run.wait_for_step(30)
    healed.cut_power("n1")
    run.must_complete()
    assert "restart 1, on n[2-3]" in run.log
    assert_equal(run.folder, undisturbed.folder)


def test_a_node_whose_slurmd_is_killed_for_good_is_replaced_and_its_ranks_end(
    healed: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    # Longer than the controller takes to notice.
    run = submit(healed, recipe, tmp_path / "slurmd", steps=2000)
    run.wait_for_step(30)
    orphan = run.rank(1)
    healed.kill("n2")
    run.wait_for("second start", lambda: "restart 1, on n[1,3]" in run.log)
    run.wait_for("end of the orphan", lambda: not orphan.is_alive)
    healed.command("scancel", run.job)
    assert run.wait_for_end() == "CANCELLED"


def test_a_slurmd_that_comes_back_in_time_is_not_noticed(
    undisturbed: Submitted, cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(cluster, recipe, tmp_path / "back")
    run.wait_for_step(30)
    cluster.kill("n2")
    cluster.start_again("n2")
    run.must_complete()
    assert run.attempts == 1
    assert_equal(run.folder, undisturbed.folder)


def test_a_controller_may_be_away_while_ranks_stop(
    undisturbed: Submitted, cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(cluster, recipe, tmp_path / "controller")
    run.wait_for_step(30)
    script = run.script
    cluster.kill(CONTROLLER)
    try:
        script.send(signal.SIGTERM)
        run.wait_for("save", lambda: "the ranks have stopped after step" in run.log)
        run.wait_for("question", lambda: "Unable to contact slurm controller" in run.log)
    finally:
        cluster.start_again(CONTROLLER)
    run.wait_for("second start", lambda: "restart 1" in run.log)
    run.must_complete()
    assert run.attempts == 2
    assert_equal(run.folder, undisturbed.folder)


def test_a_rank_that_hangs_is_named_its_stacks_are_kept_and_its_host_is_left_out(
    undisturbed: Submitted, healed: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    limit = "--set=train.stuck_after_s=8"
    run = submit(healed, recipe, tmp_path / "hangs", limit, "--exclude-failed")
    run.wait_for_step(30)
    stopped = run.rank(1)
    stopped.send(signal.SIGSTOP)
    began = time.monotonic()
    run.wait_for("verdict", lambda: "it was stuck" in run.log)
    assert time.monotonic() - began < 60
    assert "the others waited for rank 1 on n2" in run.log
    assert "File" in (run.folder / "logs" / "stuck-rank-0.txt").read_text()
    run.must_complete()
    assert not stopped.is_alive
    assert "from now on without n2 (--exclude-failed)" in run.log
    assert "restart 1, on n[1,3]" in run.log
    assert_equal(run.folder, undisturbed.folder)


def test_where_too_few_hosts_would_be_left_the_run_goes_on_with_all(
    undisturbed: Submitted, cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(cluster, recipe, tmp_path / "few", "--exclude-failed")
    run.wait_for_step(30)
    run.rank(1).send(signal.SIGKILL)
    run.must_complete()
    assert "rank 1 on n2 failed first, with exit code 137" in run.log
    assert "goes on with n2, since too few nodes would be left" in run.log
    assert_equal(run.folder, undisturbed.folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, that a test may fill."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(ballast: Path) -> None:
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_is_waited_for(
    undisturbed: Submitted, cluster: SandboxCluster, recipe: Path, small_disk: Path
) -> None:
    run = submit(cluster, recipe, small_disk / "run")
    run.wait_for_step(30)
    ballast = small_disk / "ballast"
    fill(ballast)
    run.wait_for("second start", lambda: run.restarts == 1)
    # That start finds the disk full too, so that the job waits before the next.
    run.wait_for("third", lambda: run.state == "PENDING" and run.restarts == 2)
    ballast.unlink()
    run.must_complete()
    assert_equal(run.folder, undisturbed.folder)


def test_a_disk_that_stays_full_ends_the_run(
    cluster: SandboxCluster, recipe: Path, small_disk: Path
) -> None:
    run = submit(cluster, recipe, small_disk / "run", "--max-restarts=1")
    run.wait_for_step(30)
    ballast = small_disk / "ballast"
    fill(ballast)
    assert run.wait_for_end() == "FAILED"
    assert run.restarts <= 3
    told = cluster.command(COMMAND, "status", str(run.folder))
    assert "disk       0.0 MB are free, but a checkpoint takes" in told
