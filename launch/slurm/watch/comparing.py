"""The runs of a sweep or a chain side by side: what they were given, and what came of it."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ssl_scale.errors import SslScaleError

from ..groups.groups import members
from ..groups.sweep import read_sweep
from .figures import Figure, names_of_figures, read_figure
from .story import read_stories

LOSS = "loss"


@dataclass(frozen=True)
class Result:
    """One run.

    Args:
        name: of its folder.
        given: value of each key that is varied, as it was written.
        state: of its job, or of the run.
        step: the last one on record.
        figure: what runs are compared by; None while there is none.
    """

    name: str
    given: tuple[str, ...]
    state: str
    step: int
    figure: Figure | None


@dataclass(frozen=True)
class Comparison:
    """All runs.

    Args:
        keys: what is varied.
        metric: the figure by which they are compared.
        is_higher_better: which of its values is better.
        results: in the order of the sweep.
    """

    keys: tuple[str, ...]
    metric: str
    is_higher_better: bool
    results: tuple[Result, ...]

    @property
    def best(self) -> Result | None:
        """The best run so far; None while none has a finite figure."""
        return next((result for result in self.in_order() if self._has_figure(result)), None)

    def in_order(self) -> list[Result]:
        """Best runs first; those without a finite figure last."""
        sign = -1 if self.is_higher_better else 1

        def key(result: Result) -> tuple[bool, float]:
            has = self._has_figure(result)
            return not has, sign * result.figure.compared if has and result.figure else 0.0

        return sorted(self.results, key=key)

    def _has_figure(self, result: Result) -> bool:
        return result.figure is not None and math.isfinite(result.figure.compared)


def compare(folder: Path, metric: str | None) -> Comparison:
    """Compare the runs of a folder.

    Args:
        folder: of a sweep or a chain.
        metric: a figure of metrics.jsonl, lower being better; with a leading minus, higher is
            better. Unless told, the recipe's ``train.best``, else the training loss.

    Raises:
        SslScaleError: the folder holds neither, or no run has the figure.
    """
    runs = members(folder)
    if not runs:
        raise SslScaleError(f"{folder}: must be the folder of a sweep or a chain, but is none")
    wanted = metric or _best_of_recipe(runs) or LOSS
    name, is_higher_better = wanted.removeprefix("-"), wanted.startswith("-")
    figures = [read_figure(run, name, is_higher_better) for run in runs]
    if metric is not None and not any(figures):
        raise _unknown(name, runs)
    keys, given = _varied(folder, len(runs))
    results = [
        Result(run.name, values, story.state, story.progress.step, figure)
        for run, values, story, figure in zip(runs, given, read_stories(runs), figures, strict=True)
    ]
    return Comparison(keys, name, is_higher_better, tuple(results))


def _varied(folder: Path, runs: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The keys with more than one value, and what each run has there."""
    sweep = read_sweep(folder)
    if sweep is None:
        return (), [()] * runs
    given = [tuple(text.partition("=")[2] for text in task.overrides) for task in sweep.tasks]
    differ = [n for n in range(len(sweep.keys)) if len({values[n] for values in given}) > 1]
    return tuple(sweep.keys[n] for n in differ), [tuple(v[n] for n in differ) for v in given]


def _best_of_recipe(runs: Sequence[Path]) -> str | None:
    """``train.best`` of the first run that has begun, as it was written."""
    for run in runs:
        try:
            content: Any = yaml.safe_load((run / "recipe.yaml").read_text())
            best = content["train"].get("best")
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError):
            continue
        return best if isinstance(best, str) else None
    return None


def _unknown(name: str, runs: Sequence[Path]) -> SslScaleError:
    known: set[str] = set().union(*(names_of_figures(run) for run in runs))
    near = difflib.get_close_matches(name, known, 5, 0.3) or sorted(known)[:10]
    there = f"there is {', '.join(near)}" if near else "no run has begun"
    return SslScaleError(f"--metric must be a figure of the runs, but none has {name!r}; {there}")
