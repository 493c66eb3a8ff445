"""The report's numbers: a run's summary and its evaluation, ready to be printed."""

import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_scale.errors import SslScaleError
from ssl_scale.report.curves import Lines

EVALUATION_NAME = "evaluation.json"


@dataclass(frozen=True)
class Attempt:
    """One start of the run.

    Args:
        number: from 1.
        started: UTC time.
        host: machine of rank 0.
        processes: ranks.
        start: the step it continued from.
        last: the last step it wrote about.
        lost: steps it wrote about that a later attempt did again.
    """

    number: int
    started: str
    host: str
    processes: str
    start: str
    last: str
    lost: str


@dataclass(frozen=True)
class Summary:
    """The first thing a reader wants to know."""

    state: str
    is_complete: bool
    facts: tuple[tuple[str, str], ...]
    attempts: tuple[Attempt, ...]
    resumes: tuple[int, ...]


@dataclass(frozen=True)
class Cell:
    """One figure of the evaluation table."""

    text: str
    spread: str
    is_best: bool


@dataclass(frozen=True)
class TableRow:
    """One row of the evaluation table."""

    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """The evaluation table; `groups` are headings over neighbouring columns."""

    groups: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]


def summarize(
    recipe: str,
    lines: Lines,
    void: Lines,
    resumes: Sequence[tuple[int, int]],
    environments: Sequence[Mapping[str, Any]],
    num_steps: int | None,
    is_complete: bool,
) -> Summary:
    """Count what a run did and what that took.

    Args:
        recipe: its name.
        lines: valid lines of metrics.jsonl.
        void: all lines, superseded ones too.
        resumes: (attempt, step it continued from).
        environments: entries of environment.json.
        num_steps: the recipe's number of steps, if known.
        is_complete: whether the run reached its end.
    """
    done = max((line["step"] for line in lines), default=0)
    of = f" of {num_steps}" if num_steps else ""
    facts = [("Recipe", recipe)] if recipe else []
    facts += [("Steps", f"{done}{of}"), ("Time", _duration(_active_seconds(void)))]
    if rates := _finite(line.get("samples_per_s") for line in lines if line["kind"] == "train"):
        facts.append(("Samples a second, median", figure(statistics.median(rates))))
    if waits := _finite(line.get("data_wait_share") for line in lines if line["kind"] == "train"):
        facts.append(("Time waiting for data, median", f"{statistics.median(waits):.1%}"))
    facts += [(f"Final {name}", figure(value)) for name, value in _last_losses(lines)]
    numbers = sorted({line["attempt"] for line in void} | {e["attempt"] for e in environments})
    return Summary(
        state="complete" if is_complete else f"not complete: step {done}{of}",
        is_complete=is_complete,
        facts=tuple(facts),
        attempts=tuple(_attempt(n, void, dict(resumes), environments) for n in numbers),
        resumes=tuple(step for _, step in resumes if step > 0),
    )


def read_evaluation(run_folder: Path) -> Table | None:
    """The table that ``ssl-scale evaluate`` left, or None."""
    path = Path(run_folder) / EVALUATION_NAME
    if not path.exists():
        return None
    try:
        return lay_out(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise SslScaleError(
            f"{path} must be a table written by ssl-scale evaluate, but is not ({error!r}); "
            "evaluate again or remove it"
        ) from error


def lay_out(evaluation: Mapping[str, Any]) -> Table:
    """Format an evaluation: the best figure of each column is marked."""
    columns = evaluation["columns"]
    best = {column["name"]: _best(column, evaluation["rows"]) for column in columns}
    groups: list[tuple[str, int]] = []
    for column in columns:
        if groups and groups[-1][0] == column["group"]:
            groups[-1] = (column["group"], groups[-1][1] + 1)
        else:
            groups.append((column["group"], 1))
    rows = [
        TableRow(
            row["label"],
            tuple(_cell(column, row["cells"].get(column["name"]), best) for column in columns),
        )
        for row in evaluation["rows"]
    ]
    titles = tuple(column["title"] for column in columns)
    return Table(tuple(groups), titles, tuple(rows), tuple(evaluation.get("notes", ())))


def figure(value: float) -> str:
    """A number with about four significant digits and no exponent where it reads well without."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 4 if abs(value) < 1 else 3
        return f"{value:,.{digits}f}"
    return f"{value:.3g}"


def _cell(column: Mapping[str, Any], value: Mapping[str, float] | None,
          best: Mapping[str, float | None]) -> Cell:  # fmt: skip
    if value is None:
        return Cell("", "", False)
    scale = column.get("scale", 1)
    digits = column.get("digits", 1 if scale == 100 else 3)
    spread = value.get("spread")
    return Cell(
        text=f"{scale * value['mean']:.{digits}f}",
        spread="" if spread is None else f"{scale * spread:.{digits}f}",
        is_best=value["mean"] == best[column["name"]],
    )


def _best(column: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> float | None:
    cells = (row["cells"].get(column["name"]) for row in rows)
    means = [cell["mean"] for cell in cells if cell]
    if len(means) < 2:
        return None
    return float(min(means) if column.get("better") == "lower" else max(means))


def _attempt(
    number: int,
    void: Lines,
    resumes: Mapping[int, int],
    environments: Sequence[Mapping[str, Any]],
) -> Attempt:
    environment = next((e for e in environments if e["attempt"] == number), {})
    own = [line for line in void if line["attempt"] == number]
    last = max((line["step"] for line in own), default=None)
    began = environment.get("time", min((line["time"] for line in own), default=None))
    kept = min((step for n, step in resumes.items() if n > number), default=None)
    lost = 0 if last is None or kept is None else max(0, last - max(kept, 0))
    return Attempt(
        number=number,
        started="" if began is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(began)),
        host=str(environment.get("host", "")),
        processes=str(environment.get("processes", "")),
        start=str(max(resumes.get(number, 0), 0)),
        last="" if last is None else str(last),
        lost=str(lost),
    )


def _active_seconds(void: Lines) -> float:
    """Time between each attempt's first and last line; what lies between attempts was no work."""
    spans: dict[int, list[float]] = {}
    for line in void:
        spans.setdefault(line["attempt"], []).append(line["time"])
    return sum(max(times) - min(times) for times in spans.values())


def _last_losses(lines: Lines) -> list[tuple[str, float]]:
    last: dict[str, float] = {}
    for line in lines:
        if line["kind"] == "train":
            last |= {n: v for n, v in line.items() if n == "loss" or n.startswith("loss/")}
    return [(name.removeprefix("loss/"), value) for name, value in sorted(last.items())]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _finite(values: Any) -> list[float]:
    return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
