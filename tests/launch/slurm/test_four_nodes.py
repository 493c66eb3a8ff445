"""More than two hosts: a rank is killed on one of four, and the run ends as if it had not been."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from ssl_scale_launch.slurm.sandbox.cluster import SandboxCluster

from tests.launch.slurm.submitted import assert_equal, submit

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

STEPS = 60


def test_a_rank_killed_on_one_of_four_nodes_leaves_no_trace(
    make_cluster: Callable[[int], SandboxCluster], recipe: Path, tmp_path: Path
) -> None:
    cluster = make_cluster(4)
    # Side by side: the nodes are virtual, and have room for both.
    struck, undisturbed = (
        submit(cluster, recipe, tmp_path / name, "--nodes=4", steps=STEPS)
        for name in ("struck", "undisturbed")
    )
    struck.wait_for_step(10)
    struck.rank(2).send(signal.SIGKILL)
    undisturbed.must_complete()
    struck.must_complete()
    assert "4 ranks from step 0 on" in struck.log
    assert "rank 2 on n3 failed first, with exit code 137" in struck.log
    assert struck.attempts == 2
    assert_equal(struck.folder, undisturbed.folder)
