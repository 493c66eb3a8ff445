"""What Slurm knows of a job, for as long as it knows it."""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from .packages import search_path

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE")
_FIELDS = {
    name: re.compile(rf"(?:^| ){name}=(\S*)")
    for name in ("JobState", "Reason", "Restarts", "NodeList", "StartTime")
}


@dataclass(frozen=True)
class JobState:
    """A job as Slurm sees it.

    Args:
        state: such as RUNNING.
        reason: why it waits or has ended; empty if there is none.
        restarts: how often it went back to the queue.
        nodes: where it runs or ran; empty if nowhere.
        start: when it started, or will at the earliest.
    """

    state: str
    reason: str
    restarts: int
    nodes: str
    start: str

    @property
    def is_over(self) -> bool:
        """Whether it has left the queue."""
        return self.state in ENDED

    @classmethod
    def read(cls, line: str) -> "JobState | None":
        """What a line of ``scontrol show job --oneliner`` says; None if it is not one."""
        found = {name: pattern.search(line) for name, pattern in _FIELDS.items()}
        values = {name: match[1] for name, match in found.items() if match is not None}
        if "JobState" not in values:
            return None
        known = {
            name: "" if value in ("None", "(null)") else value for name, value in values.items()
        }
        restarts = known.get("Restarts", "")
        return cls(
            known["JobState"],
            known.get("Reason", ""),
            int(restarts) if restarts.isdecimal() else 0,
            known.get("NodeList", ""),
            known.get("StartTime", ""),
        )


def ask_slurm(job: str, environment: Mapping[str, str] = os.environ) -> JobState | None:
    """A job's state; None where Slurm does not know it, or is not there."""
    told = run_slurm("scontrol", "show", "job", "--oneliner", job, environment=environment)
    return None if told is None else JobState.read(told)


def run_slurm(*words: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """What one of Slurm's commands printed; None if it failed or is not there."""
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=60,
            env={**environment, "PATH": search_path(environment)},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
