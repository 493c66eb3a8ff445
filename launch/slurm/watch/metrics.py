"""The newest lines of a run's metrics.jsonl that count, and how fast the run has been lately."""

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .tail import tail

NAME = "metrics.jsonl"
# Enough for the last lines; a run's metrics may be gigabytes.
TAIL_BYTES = 1 << 16
# Over so many pairs of lines the speed is averaged: checkpoints and validations are in it.
PAIRS = 20


def newest_lines(run_folder: Path) -> list[dict[str, Any]]:
    """The last lines about training that count, oldest first.

    A start from a checkpoint makes later steps of earlier starts void. If it left none of the lines
    that we look at, there is one line with the step it began at.
    """
    return _that_count(_parsed(tail(run_folder / NAME, TAIL_BYTES)))


def _parsed(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            content = json.loads(line)
        except ValueError:  # the first may be cut by where we began, the last by a kill
            continue
        if isinstance(content, dict):
            yield content


def _that_count(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for line in lines:
        mark = line.get("after_step")
        if line.get("kind") == "superseded" and isinstance(mark, int):
            kept = [earlier for earlier in kept if earlier["step"] <= mark]
            kept = kept or [{"step": max(0, mark)}]
        elif line.get("kind") == "train" and isinstance(line.get("step"), int):
            kept.append(line)
    return kept


def seconds_per_step(lines: Sequence[dict[str, Any]]) -> float | None:
    """How long a step took lately; None while too few lines of one start tell.

    What passes between two starts of the run is not counted.
    """
    seconds, steps = 0.0, 0
    for before, after in list(itertools.pairwise(lines))[-PAIRS:]:
        is_same_start = before.get("attempt") == after.get("attempt")
        if is_same_start and "time" in before and "time" in after:
            seconds += after["time"] - before["time"]
            steps += after["step"] - before["step"]
    return seconds / steps if steps > 0 and seconds >= 0 else None
