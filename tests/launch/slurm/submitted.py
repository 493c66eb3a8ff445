"""Runs of the tiny recipe on the private cluster, submitted by the command and watched."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ssl_scale_launch.slurm.client.owned_process import OwnedProcess, with_variable
from ssl_scale_launch.slurm.sandbox.cluster import SandboxCluster

from ssl_scale.train.records import read_metrics
from tests.train.tiny import saved

COMMAND = str(Path(sys.executable).with_name("ssl-launch"))
LOOK_S = 0.2
STEPS = 300
OVERRIDES = ("train.save_every=10", "data.num_workers=1", "train.log_every=1")


@dataclass(frozen=True)
class Submitted:
    """A run that was submitted.

    Args:
        cluster: where to.
        job: Slurm's number.
        folder: of the run.
    """

    cluster: SandboxCluster
    job: str
    folder: Path

    @property
    def state(self) -> str:
        """What Slurm says of the job, such as RUNNING."""
        told = self.cluster.command("scontrol", "show", "job", "--oneliner", self.job)
        return re.findall(r" JobState=(\w+)", told)[0]

    @property
    def log(self) -> str:
        """What the batch script said."""
        path = self.folder / "logs" / f"slurm-{self.job}.log"
        return path.read_text() if path.exists() else ""

    @property
    def attempts(self) -> int:
        """How often training was started."""
        return len(json.loads((self.folder / "environment.json").read_text())["attempts"])

    @property
    def restarts(self) -> int:
        """How often the job went back to the queue."""
        told = self.cluster.command("scontrol", "show", "job", "--oneliner", self.job)
        return int(re.findall(r" Restarts=(\d+)", told)[0])

    @property
    def script(self) -> OwnedProcess:
        """The batch script's process."""
        found = [process for process in self._processes() if process.name == "slurm_script"]
        return min(found, key=lambda process: process.started)

    def wait_for(self, what: str, is_there: Callable[[], bool], limit_s: float = 240) -> None:
        """Wait; what the job said comes with the failure."""
        deadline = time.monotonic() + limit_s
        while not is_there():
            assert time.monotonic() < deadline, f"no {what} in {limit_s} s\n{self._everything()}"
            time.sleep(LOOK_S)

    def wait_for_step(self, step: int) -> None:
        """Wait for a checkpoint of this step or a later one: old ones go."""
        self.wait_for(f"step {step}", lambda: self.newest_step >= step)

    @property
    def newest_step(self) -> int:
        """Of the newest finished checkpoint; 0 if there is none."""
        commits = self.folder.glob("checkpoints/step-?????????/COMMIT")
        return max((int(commit.parent.name.removeprefix("step-")) for commit in commits), default=0)

    def wait_for_end(self) -> str:
        """Wait until the job has left the queue for good; returns its last state."""
        ends = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
        self.wait_for("end", lambda: self.state in ends, 400)
        return self.state

    def must_complete(self) -> None:
        """Wait for the end, which must be a good one."""
        state = self.wait_for_end()
        assert state == "COMPLETED", f"{state}\n{self._everything()}"
        assert (self.folder / "COMPLETED").exists(), self._everything()

    def rank(self, number: int) -> OwnedProcess:
        """A rank's own process."""
        return min(self._ranks(number), key=lambda process: process.started)

    def has_rank(self, number: int) -> bool:
        """Whether a rank's program runs already."""
        return bool(self._ranks(number))

    def _ranks(self, number: int) -> list[OwnedProcess]:
        ranks = self._processes().intersection(with_variable("SLURM_PROCID", str(number)))
        return [process for process in ranks if process.name.startswith("ssl-scale")]

    def _processes(self) -> set[OwnedProcess]:
        # Jobs of other clusters on this machine have the same numbers.
        configuration = str(self.cluster.layout.configuration)
        ours = set(with_variable("SLURM_CONF", configuration))
        return ours.intersection(with_variable("SLURM_JOB_ID", self.job))

    def _everything(self) -> str:
        logs = sorted(self.folder.glob("logs/*"))
        return "\n".join(f"== {path}\n{path.read_text()[-3000:]}" for path in logs)


def submit(
    cluster: SandboxCluster, recipe: Path, folder: Path, *options: str, steps: int = STEPS
) -> Submitted:
    """Submit the tiny recipe to two nodes, a rank on each."""
    done = subprocess.run(
        [
            COMMAND, "submit", str(recipe), "--nodes=2", "--processes-per-node=1", "--time=10",
            f"--run-folder={folder}", f"--set=train.steps={steps}",
            *(f"--set={override}" for override in OVERRIDES), *options,
        ],
        capture_output=True, text=True, check=False, cwd=recipe.parent,
        env={**cluster.environment, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Submitted(cluster, done.stdout.strip(), folder)


def assert_equal(one: Path, other: Path) -> None:
    """Two runs must have the same losses, weights, moments and buffers, to the last bit."""
    assert _losses(one) == _losses(other)
    mine, theirs = saved(one), saved(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def _losses(run_folder: Path) -> dict[int, dict[str, Any]]:
    return {
        line["step"]: {name: value for name, value in line.items() if name.startswith("loss")}
        for line in read_metrics(run_folder / "metrics.jsonl")
        if line["kind"] == "train"
    }
