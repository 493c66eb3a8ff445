"""Preemptions and strikes without number leave no trace in what a run on Slurm becomes."""

import json
import statistics
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from ssl_scale_launch.slurm.sandbox.cluster import SandboxCluster

from tests.launch.slurm.preempting import Preemptor
from tests.launch.slurm.submitted import COMMAND, Submitted, assert_equal, submit
from tests.torture.table import record
from tests.train.tiny import make_recipe

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

STEPS = 600
SEED, PREEMPTIONS = 20, 20
CHAOS_SEED, STRIKES = 10, 10


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("tiny"), norm="batch")


@pytest.fixture(scope="module")
def undisturbed(
    cluster: SandboxCluster, recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> Submitted:
    run = submit(cluster, recipe, tmp_path_factory.mktemp("runs") / "undisturbed", steps=STEPS)
    run.must_complete()
    return run


def test_twenty_preemptions_are_twenty_returns_to_the_queue(
    undisturbed: Submitted, cluster: SandboxCluster, recipe: Path, tmp_path: Path
) -> None:
    run = submit(cluster, recipe, tmp_path / "preempted", steps=STEPS)
    preemptor = Preemptor(run, 2, SEED)
    preempted = [preemptor.preempt() for _ in range(PREEMPTIONS)]
    run.must_complete()
    assert run.attempts == PREEMPTIONS + 1
    assert run.restarts == PREEMPTIONS
    assert [each.lost for each in preempted] == [0] * PREEMPTIONS
    assert_equal(run.folder, undisturbed.folder)
    record(
        "preemptions on Slurm, 2 nodes x 1 process",
        SEED,
        steps=STEPS,
        preemptions=PREEMPTIONS,
        returns_to_the_queue=run.restarts,
        steps_lost=0,
        seconds_from_signal_to_saved=_median(each.stopping_s for each in preempted),
        seconds_of_the_scheduler=_median(each.waiting_s for each in preempted),
        seconds_from_signal_to_running_again_without_the_scheduler=_median(
            each.own_s for each in preempted
        ),
        tensors_that_differ=0,
    )


def test_strikes_of_every_kind_leave_weights_and_losses_as_they_would_have_been(
    undisturbed: Submitted, cluster: SandboxCluster, tmp_path: Path
) -> None:
    struck = tmp_path / "struck"
    command = [COMMAND, "chaos", str(undisturbed.folder), f"--folder={struck}", "--pause=5"]
    done = subprocess.run(
        [*command, f"--kills={STRIKES}", f"--seed={CHAOS_SEED}"],
        capture_output=True, text=True, check=False, env=cluster.environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((struck / "chaos.json").read_text())
    kinds = [strike["kind"] for strike in report["strikes"]]
    assert len(kinds) == STRIKES and len(set(kinds)) == 5
    assert_equal(struck, undisturbed.folder)
    record(
        "ssl-launch chaos on Slurm, 2 nodes x 1 process",
        CHAOS_SEED,
        steps=STEPS,
        **{kind.replace("-", "_"): kinds.count(kind) for kind in sorted(set(kinds))},
        steps_redone=sum(strike["redone"] for strike in report["strikes"]),
        tensors_that_differ=0,
    )


def _median(seconds: Iterable[float]) -> int:
    return round(statistics.median(seconds))
