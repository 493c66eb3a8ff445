"""One figure of a run over its steps, from the whole of its metrics.jsonl."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .metrics import NAME


@dataclass(frozen=True)
class Figure:
    """What became of one figure in one run.

    Args:
        last: its newest value; NaN where it was not finite.
        best: its best finite value; NaN if there was none.
        at_step: where that was.
        is_held_out: whether validation measured it, not training.
    """

    last: float
    best: float
    at_step: int
    is_held_out: bool

    @property
    def compared(self) -> float:
        """What runs are compared by: of training the newest value, since one step says little."""
        return self.best if self.is_held_out else self.last


def read_figure(run_folder: Path, name: str, is_higher_better: bool) -> Figure | None:
    """A figure of a run; None if it is not on record.

    Args:
        run_folder: of the run.
        name: as in metrics.jsonl, such as ``held_out/loss/clip``.
        is_higher_better: what makes a value the best.
    """
    seen: list[tuple[int, float]] = []
    is_held_out = False
    for line in _lines(run_folder / NAME):
        mark, step = line.get("after_step"), line.get("step")
        if line.get("kind") == "superseded" and isinstance(mark, int):
            seen = [(at, value) for at, value in seen if at <= mark]
        elif name in line and isinstance(step, int):
            is_held_out = line.get("kind") == "validation"
            seen.append((step, _number(line[name])))
    if not seen:
        return None
    sign = -1 if is_higher_better else 1
    finite = [(at, value) for at, value in seen if math.isfinite(value)]
    at_step, best = min(finite, key=lambda pair: sign * pair[1], default=(seen[-1][0], math.nan))
    return Figure(seen[-1][1], best, at_step, is_held_out)


def names_of_figures(run_folder: Path) -> set[str]:
    """What figures a run has on record."""
    return {
        name
        for line in _lines(run_folder / NAME)
        for name, value in line.items()
        if isinstance(value, float) and name != "time"
    }


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        file = path.open(errors="replace")
    except OSError:  # the run has not begun
        return
    with file:
        for text in file:
            try:
                content = json.loads(text)
            except ValueError:  # torn by a kill
                continue
            if isinstance(content, dict):
                yield content


def _number(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else math.nan  # type: ignore[arg-type]
