"""What two runs of one recipe have become, compared to the last bit."""

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_scale.errors import SslScaleError

from ..watch.growing_metrics import GrowingMetrics

SAME, DIFFERENT = 0, 1
LINES = 5  # of each kind, where checkpoints differ


@dataclass(frozen=True)
class Comparison:
    """How two runs compare.

    Args:
        hashes: of each run's last weights and optimizer, as they were written.
        checkpoints_are_same: whether all tensors and counters are.
        told: what ``ssl-scale checkpoint diff`` said.
        steps: on record in both runs.
        differing: those of them with other losses.
    """

    hashes: tuple[str, str]
    checkpoints_are_same: bool
    told: str
    steps: int
    differing: tuple[int, ...]

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        return self.checkpoints_are_same and not self.differing

    def lines(self) -> list[str]:
        """For people."""
        one, other = self.hashes
        lines = [f"weights' hash: {one} and {other}"]
        if not self.checkpoints_are_same:
            lines += self.told.splitlines()
        if self.differing:
            lines.append(
                f"losses differ at {len(self.differing):,} of {self.steps:,} steps, first at step "
                f"{self.differing[0]:,}"
            )
        else:
            lines.append(f"losses: of {self.steps:,} steps, all the same")
        return lines


def compare(program: str, one: Path, other: Path) -> Comparison:
    """Compare the last checkpoints of two runs, and the losses of all steps that both recorded.

    Args:
        program: ``ssl-scale``.
        one: a run's folder.
        other: the other's.

    Raises:
        SslScaleError: a checkpoint is missing or damaged.
    """
    hashes = weights_hash(one), weights_hash(other)
    command = [program, "checkpoint", "diff", f"--lines={LINES}", str(one), str(other)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode not in (SAME, DIFFERENT):
        raise SslScaleError(done.stderr.strip().removeprefix("error: "))
    mine, theirs = losses_of(one), losses_of(other)
    both = sorted(mine.keys() & theirs.keys())
    differing = tuple(step for step in both if mine[step] != theirs[step])
    return Comparison(hashes, done.returncode == SAME, done.stdout, len(both), differing)


def weights_hash(run_folder: Path) -> str:
    """A hash of the last checkpoint's tensors, made of those that every file was sealed with.

    Raises:
        SslScaleError: there is no checkpoint.
    """
    commits = sorted((run_folder / "checkpoints").glob("step-?????????/COMMIT"))
    if not commits:
        raise SslScaleError(f"{run_folder}: must hold a checkpoint, but holds none")
    try:
        files = json.loads(commits[-1].read_bytes())["files"]
        sealed = [f"{name} {files[name]['xxh3']}" for name in sorted(files) if is_weights(name)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SslScaleError(f"{commits[-1]}: must be as it was written, but is not") from error
    return hashlib.sha256("\n".join(sealed).encode()).hexdigest()[:16]


def is_weights(name: str) -> bool:
    """Whether a file of a checkpoint holds tensors."""
    return name.endswith(".safetensors")


def losses_of(run_folder: Path) -> dict[int, dict[str, Any]]:
    """Step -> its losses by name; of a step that was done again, those of the last time."""
    return {
        line["step"]: {name: value for name, value in line.items() if name.startswith("loss")}
        for line in GrowingMetrics(run_folder).new_lines()
        if line.get("kind") == "train"
    }
