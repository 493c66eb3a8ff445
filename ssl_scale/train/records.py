"""What a run writes down about itself: metrics.jsonl, the source of truth of its figures.

One writer (rank 0), append only, one line an event::

    {"kind": "train", "step": 120, "attempt": 2, "time": 1735.2, "loss": 0.31, "source": "bare"}

Every start of a run is an *attempt*. A resume at step S makes what earlier attempts wrote about
later steps void; it says so by appending a ``superseded`` line, never by rewriting the file, so
nothing that once was written is lost and a reader needs one pass to know what counts. A kill may
tear the last line; the next attempt starts on a fresh one and readers pass over the torn one.
A run that goes back after a spike does the same with its own lines (``own``: true).
Other views of the same figures (wandb) are fed from here and can't stop the run.
"""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias, runtime_checkable

from ssl_scale import dist

METRICS_NAME = "metrics.jsonl"

Kind: TypeAlias = Literal["train", "validation", "probe", "data", "superseded"]
Line: TypeAlias = dict[str, Any]

_log = logging.getLogger(__name__)


@runtime_checkable
class RecordView(Protocol):
    """Something that shows the same figures elsewhere."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Show one line of metrics.jsonl."""

    def close(self) -> None:
        """Finish."""


class Records:
    """Appends to a run's metrics.jsonl; on ranks other than 0 it does nothing.

    Args:
        run_folder: the run's folder; made if missing.
        attempt: number of this start of the run, from 1 (`environment.next_attempt`).
        views: further places that are shown each line, rank 0 only.
    """

    def __init__(self, run_folder: Path, attempt: int, views: Sequence[RecordView] = ()) -> None:
        if attempt < 1:
            raise ValueError(f"attempt must be at least 1, but is {attempt}")
        self.path = Path(run_folder) / METRICS_NAME
        self.attempt = attempt
        self._views = list(views)
        self._file: BinaryIO | None = None
        self._is_failing = False

    def resume(self, after_step: int) -> None:
        """Declare void what earlier attempts wrote about steps after the checkpoint's.

        Args:
            after_step: the step of the checkpoint, or -1 if the run starts over.
        """
        self._append({"kind": "superseded", "after_step": after_step, "attempt": self.attempt})

    def go_back(self, after_step: int) -> None:
        """Declare void what was written so far about steps after a checkpoint's, also by us."""
        mark = {"kind": "superseded", "after_step": after_step, "attempt": self.attempt}
        self._append(mark | {"own": True})

    def write(self, kind: Kind, step: int, values: Mapping[str, float | str]) -> None:
        """Append one line.

        Args:
            kind: what the figures are about.
            step: optimizer steps done.
            values: figures by name; a number that is not finite is written as null.
        """
        line: Line = {"kind": kind, "step": step, "attempt": self.attempt, "time": time.time()}
        taken = sorted(set(line) & set(values))
        if taken:
            raise ValueError(f"names of figures must differ from {sorted(line)}, but are {taken}")
        self._append(line | {name: _plain(value) for name, value in values.items()})

    def close(self) -> None:
        """Close the file and the views."""
        if self._file is not None:
            self._file.close()
            self._file = None
        for view in self._views:
            view.close()
        self._views = []

    def _append(self, line: Line) -> None:
        if dist.rank() != 0:
            return
        try:
            if self._file is None:
                self._file = _open_for_append(self.path)
            start = b"\n" if self._is_failing else b""
            # One write call, so that a kill tears at most this line.
            self._file.write(start + json.dumps(line, allow_nan=False).encode() + b"\n")
            self._is_failing = False
        except OSError as error:  # A full disk must not end the training.
            if not self._is_failing:
                _log.warning("%s can't be written: %s; training goes on", self.path, error)
            self._is_failing = True
        for view in list(self._views):
            try:
                view.write(line)
            except Exception as error:  # noqa: BLE001  A view is a convenience; the run goes on.
                _log.warning("%s failed and is switched off: %s", type(view).__name__, error)
                self._views.remove(view)


def read_metrics(path: Path, with_void: bool = False) -> list[Line]:
    """The lines that count, in the order of the file; null figures become NaN.

    Torn lines, superseded lines and the markers that supersede them are left out.

    Args:
        path: a metrics.jsonl; a missing one has no lines.
        with_void: keep superseded lines, to see what the run really spent.
    """
    lines = _parse(path)
    marks = [(place, line) for place, line in enumerate(lines) if _is_mark(line)]
    return [
        {name: math.nan if value is None else value for name, value in line.items()}
        for place, line in enumerate(lines)
        if not _is_mark(line)
        and (with_void or not any(_voids(mark, line, place < at) for at, mark in marks))
    ]


def read_resumes(path: Path) -> list[tuple[int, int]]:
    """Every resume of the run as (attempt, step of the checkpoint it continued from)."""
    return [
        (line["attempt"], line["after_step"])
        for line in _parse(path)
        if _is_mark(line) and not line.get("own")
    ]


def _voids(mark: Line, line: Line, is_before: bool) -> bool:
    of_earlier = line["attempt"] < mark["attempt"]
    own = line["attempt"] == mark["attempt"] and bool(mark.get("own")) and is_before
    return bool((of_earlier or own) and line["step"] > mark["after_step"])


def _parse(path: Path) -> list[Line]:
    if not Path(path).exists():
        return []
    lines = []
    for raw in Path(path).read_bytes().split(b"\n"):
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        keys = {"attempt", "after_step"} if _is_mark(line) else {"attempt", "step"}
        if isinstance(line, dict) and all(type(line.get(key)) is int for key in keys):
            lines.append(line)
    return lines


def _is_mark(line: Any) -> bool:
    return isinstance(line, dict) and line.get("kind") == "superseded"


def _plain(value: float | str) -> float | str | None:
    if isinstance(value, str):
        return value
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(value) if isinstance(value, int) else number


def _open_for_append(path: Path) -> BinaryIO:
    """Open unbuffered; if an earlier writer was killed in mid-line, end that line first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab", buffering=0)
    if path.stat().st_size:
        with path.open("rb") as written:
            written.seek(-1, 2)
            if written.read(1) != b"\n":
                file.write(b"\n")
    return file
