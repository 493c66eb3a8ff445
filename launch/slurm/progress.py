"""How far a run is, from the files in its folder."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Enough for the last lines; a run's metrics may be gigabytes.
TAIL_BYTES = 1 << 16
SAYS = "ssl-launch: "


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Args:
        step: the last one on record; 0 if there is none.
        total: of the whole run; None while no checkpoint tells.
        loss: of that step.
        samples_per_s: at that step.
        attempts: how often training was started.
        is_completed: whether the run is done.
        said: what the last job's script said last; empty if nothing.
    """

    step: int
    total: int | None
    loss: float | None
    samples_per_s: float | None
    attempts: int
    is_completed: bool
    said: str


def read_progress(run_folder: Path) -> Progress:
    """The progress of a run; files that are missing or torn tell nothing."""
    lines = [line for line in _json_lines(run_folder / "metrics.jsonl") if "step" in line]
    trained = [line for line in lines if line.get("kind") == "train"]
    last = trained[-1] if trained else {}
    return Progress(
        step=int(last.get("step", 0)),
        total=_total(run_folder / "checkpoints"),
        loss=last.get("loss"),
        samples_per_s=last.get("samples_per_s"),
        attempts=_attempts(run_folder / "environment.json"),
        is_completed=(run_folder / "COMPLETED").exists(),
        said=_last_said(run_folder / "logs"),
    )


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in _tail(path):
        try:
            content = json.loads(line)
        except ValueError:  # the first may be cut by where we began, the last by a kill
            continue
        if isinstance(content, dict):
            yield content


def _total(checkpoints: Path) -> int | None:
    for commit in sorted(checkpoints.glob("step-?????????/COMMIT"), reverse=True):
        try:
            return int(json.loads(commit.read_bytes())["state"]["total"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _attempts(path: Path) -> int:
    try:
        return len(json.loads(path.read_text())["attempts"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _last_said(logs: Path) -> str:
    scripts = sorted(logs.glob("slurm-*.log"), key=lambda path: path.stat().st_mtime)
    for path in reversed(scripts):
        for line in reversed(_tail(path)):
            if line.startswith(SAYS):
                return line.removeprefix(SAYS)
    return ""
