"""Ranks of one host under each launcher: killed in the middle, a run ends as if undisturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from ssl_scale_launch.slurm.client.owned_process import OwnedProcess, with_variable

from tests.launch.slurm.listening import listening_addresses
from tests.launch.slurm.submitted import assert_equal
from tests.train.tiny import make_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOOLS = Path(sys.executable).parent
LOCAL = (str(TOOLS / "ssl-launch"), "local", "--processes=2", "--max-restarts=1")
TORCHRUN = (
    str(TOOLS / "torchrun"), "--standalone", "--nproc-per-node=2", "--max-restarts=1",
    "--no-python", str(TOOLS / "ssl-scale"), "fit",
)  # fmt: skip
STEPS = 60
OVERRIDES = (f"train.steps={STEPS}", "train.save_every=10", "train.log_every=1")
WAIT_S = 240.0


class Started:
    """A run under a launcher.

    Args:
        launcher: its words, up to the recipe.
        recipe: the tiny one.
        folder: of the run.
    """

    def __init__(self, launcher: Sequence[str], recipe: Path, folder: Path) -> None:
        self.folder = folder
        overrides = [f"--set={override}" for override in OVERRIDES]
        self.said = folder.with_name(f"{folder.name}.log")
        with self.said.open("w") as log:
            self.process = subprocess.Popen(
                [*launcher, str(recipe), f"--run-folder={folder}", *overrides],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
            )  # fmt: skip

    def wait_for_step(self, step: int) -> None:
        """Wait for a checkpoint."""
        commit = self.folder / "checkpoints" / f"step-{step:09d}" / "COMMIT"
        deadline = time.monotonic() + WAIT_S
        while not commit.exists():
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < deadline, self.said.read_text()
            time.sleep(0.02)

    def rank(self, number: int) -> OwnedProcess:
        """A rank's own process."""
        ours = f"--run-folder={self.folder}".encode()
        found = [
            process
            for process in with_variable("RANK", str(number))
            if ours in Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        ]
        return min(found, key=lambda process: process.started)

    def end(self) -> int:
        """Wait for the end; returns the exit code."""
        return self.process.wait(WAIT_S)

    @property
    def attempts(self) -> int:
        """How often training was started."""
        return len(json.loads((self.folder / "environment.json").read_text())["attempts"])


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str], str], Started]:
    folder = tmp_path_factory.mktemp("runs")
    recipe = make_recipe(folder)
    return lambda launcher, name: Started(launcher, recipe, folder / name)


@pytest.fixture(scope="module")
def undisturbed(start: Callable[[Sequence[str], str], Started]) -> Started:
    run = start(LOCAL, "undisturbed")
    assert run.end() == 0, run.said.read_text()
    assert run.attempts == 1
    return run


@pytest.mark.parametrize("launcher", [LOCAL, TORCHRUN], ids=["ssl-launch", "torchrun"])
def test_a_run_of_which_a_rank_is_killed_ends_as_if_undisturbed(
    launcher: Sequence[str],
    start: Callable[[Sequence[str], str], Started],
    undisturbed: Started,
    request: pytest.FixtureRequest,
) -> None:
    run = start(launcher, f"killed-{request.node.callspec.id}")
    run.wait_for_step(20)
    listening = listening_addresses([run.rank(0).pid, run.rank(1).pid])
    assert {address.rpartition(":")[0] for address in listening} == {"127.0.0.1"}
    run.rank(1).send(signal.SIGKILL)
    assert run.end() == 0, run.said.read_text()
    assert run.attempts == 2
    assert (run.folder / "COMPLETED").read_text() == f"{STEPS}\n"
    assert_equal(run.folder, undisturbed.folder)


def test_a_run_that_is_told_to_stop_saves_and_is_not_started_again(
    start: Callable[[Sequence[str], str], Started], undisturbed: Started
) -> None:
    run = start(LOCAL, "stopped")
    run.wait_for_step(10)
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 75, run.said.read_text()
    assert run.attempts == 1
    again = start(LOCAL, "stopped")
    assert again.end() == 0, again.said.read_text()
    assert_equal(run.folder, undisturbed.folder)
