"""Preemptions that reach the ranks one after another: each saves, comes back and loses nothing."""

from pathlib import Path

import pytest
from ssl_scale_launch.slurm.sandbox.cluster import SandboxCluster

from tests.launch.slurm.preempting import Preemptor
from tests.launch.slurm.submitted import Submitted, assert_equal, submit

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

SEED, TIMES = 3, 3


def test_ranks_that_hear_of_a_preemption_one_after_another_stop_together_and_come_back(
    undisturbed: Submitted, cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(cluster, recipe, tmp_path / "preempted")
    preemptor = Preemptor(run, 2, SEED)
    for _ in range(TIMES):
        assert preemptor.preempt().lost == 0
    run.must_complete()
    assert run.attempts == TIMES + 1
    assert run.restarts == TIMES
    assert_equal(run.folder, undisturbed.folder)
