"""The logs of a run's ranks and of its jobs' scripts, read together."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

TAIL_BYTES = 1 << 20
ERROR_LINES = 60
_FAILED = re.compile(r"ssl-launch: .*: rank (\d+) on (\S+) failed first, with exit code (\d+)")
_NUMBER = re.compile(r"\d+")


def log_files(run_folder: Path) -> list[Path]:
    """The logs of scripts, then of ranks, by their numbers."""
    logs = run_folder / "logs"
    of_scripts, of_ranks = logs.glob("slurm-*.log"), logs.glob("rank-*.log")
    return [*sorted(of_scripts, key=_number), *sorted(of_ranks, key=_number)]


def first_failure(run_folder: Path) -> str:
    """Which rank failed first in the last start that failed, and its error; empty if none did."""
    told = None
    for path in log_files(run_folder):
        if path.name.startswith("slurm-"):
            for line in _tail(path):
                told = _FAILED.match(line) or told
    if told is None:
        return ""
    log = run_folder / "logs" / f"rank-{told[1]}.log"
    error = _last_error(_tail(log)) if log.exists() else "its log is gone"
    return f"rank {told[1]} on {told[2]} failed first, with exit code {told[3]}:\n{error}"


def _last_error(lines: list[str]) -> str:
    """The last error of a log: a log holds all starts of a run, and its end is the latest."""
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith("error: "):
            return lines[number]
        if lines[number].startswith("Traceback (most recent call last)"):
            return "\n".join(lines[number : number + ERROR_LINES])
    return "\n".join(lines[-10:])


class Follower:
    """Gives the lines that logs grow by, each with who said it.

    Args:
        run_folder: of the run; logs that come later are followed too.
        before: how many lines of what is there already.
    """

    def __init__(self, run_folder: Path, before: int) -> None:
        self._run_folder = run_folder
        self._before = before
        self._read: dict[Path, int] = {}

    def new_lines(self) -> Iterator[str]:
        """Whole lines that were added since the last call."""
        is_first = not self._read
        for path in log_files(self._run_folder):
            start = self._read.get(path, 0)
            with path.open("rb") as file:
                if is_first:
                    start = max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES)
                file.seek(start)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read[path] = start + len(whole)
            lines = whole.decode(errors="replace").splitlines()
            who = path.stem.replace("slurm-", "job ").replace("rank-", "rank ")
            first = max(0, len(lines) - self._before) if is_first else 0
            yield from (f"{who}: {line}" for line in lines[first:])


def _tail(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()


def _number(path: Path) -> int:
    found = _NUMBER.findall(path.stem)
    return int(found[-1]) if found else -1
