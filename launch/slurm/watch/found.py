"""The runs below a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from .progress import changed

MARKS = ("launch.json", "metrics.jsonl", "environment.json")
# What a run keeps in its folder; no run lies in there, and some hold many files.
OWN = ("checkpoints", "logs", "launch", "heartbeats")
DEPTH = 6


def find_runs(folder: Path) -> list[Path]:
    """The folders of runs at or below a folder, the one with the newest activity first."""
    return sorted(_below(folder, DEPTH, set()), key=active_at, reverse=True)


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return any((folder / mark).is_file() for mark in MARKS)


def active_at(run_folder: Path) -> float:
    """When anything happened in a run, in seconds since 1970."""
    logs = (run_folder / "logs").glob("*.log")
    times = [changed(path) for path in (*(run_folder / mark for mark in MARKS), *logs)]
    return max((time for time in times if time is not None), default=0.0)


def _below(folder: Path, depth: int, seen: set[str]) -> Iterator[Path]:
    # Links are followed, since runs often lie on another disk; but into no folder twice.
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    runs_here = is_run(folder)
    if runs_here:
        yield folder
    if not depth:
        return
    try:
        entries = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError:  # somebody else's
        return
    for name in entries:
        is_own = runs_here and (name in OWN or name.startswith("checkpoints."))
        if not (is_own or name.startswith(".")):
            yield from _below(folder / name, depth - 1, seen)
