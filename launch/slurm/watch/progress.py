"""How far a run is, from the files in its folder."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import metrics
from .tail import tail

SAYS = "ssl-launch: "


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Args:
        step: the last one on record that counts; 0 if there is none.
        total: of the whole run; None where neither a checkpoint nor the recipe tells.
        loss: of that step.
        samples_per_s: at that step.
        step_s: seconds that a step took lately; None while that is not known.
        written: when the metrics grew last, in seconds since 1970; None if there are none.
        checkpoint: step of the newest finished checkpoint; None if there is none.
        saved: when it was finished, in seconds since 1970.
        attempts: how often training was started.
        is_completed: whether the run is done.
        said: what the last job's script said last; empty if nothing.
    """

    step: int
    total: int | None
    loss: float | None
    samples_per_s: float | None
    step_s: float | None
    written: float | None
    checkpoint: int | None
    saved: float | None
    attempts: int
    is_completed: bool
    said: str

    @property
    def left_s(self) -> float | None:
        """Seconds of training that are left at the pace of late; None while that is not known."""
        if self.is_completed:
            return 0.0
        if self.total is None or self.step_s is None:
            return None
        return max(0, self.total - self.step) * self.step_s


def read_progress(run_folder: Path) -> Progress:
    """The progress of a run; files that are missing or torn tell nothing."""
    lines = metrics.newest_lines(run_folder)
    last = lines[-1] if lines else {}
    commits = sorted((run_folder / "checkpoints").glob("step-?????????/COMMIT"), reverse=True)
    total = _total(commits)
    return Progress(
        step=int(last.get("step", 0)),
        total=total if total is not None else _steps_of_recipe(run_folder / "recipe.yaml"),
        loss=last.get("loss"),
        samples_per_s=last.get("samples_per_s"),
        step_s=metrics.seconds_per_step(lines),
        written=changed(run_folder / metrics.NAME),
        checkpoint=int(commits[0].parent.name.removeprefix("step-")) if commits else None,
        saved=changed(commits[0]) if commits else None,
        attempts=_attempts(run_folder / "environment.json"),
        is_completed=(run_folder / "COMPLETED").exists(),
        said=_last_said(run_folder / "logs"),
    )


def changed(path: Path) -> float | None:
    """When a file was written last, in seconds since 1970; None if it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _total(commits: Iterable[Path]) -> int | None:
    for commit in commits:
        try:
            return int(json.loads(commit.read_bytes())["state"]["total"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _steps_of_recipe(path: Path) -> int | None:
    """The steps that a recipe names; None where it counts otherwise, as in epochs."""
    try:
        content: Any = yaml.safe_load(path.read_text())
        steps = content["train"]["steps"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return steps if type(steps) is int else None


def _attempts(path: Path) -> int:
    try:
        return len(json.loads(path.read_text())["attempts"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _last_said(logs: Path) -> str:
    scripts = sorted(logs.glob("slurm-*.log"), key=lambda path: changed(path) or 0)
    for path in reversed(scripts):
        for line in reversed(tail(path, metrics.TAIL_BYTES)):
            if line.startswith(SAYS):
                return line.removeprefix(SAYS)
    return ""
