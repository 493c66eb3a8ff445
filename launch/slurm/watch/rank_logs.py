"""The logs of a run's ranks and of its jobs' scripts, read together."""

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from .tail import tail

TAIL_BYTES = 1 << 20
ERROR_LINES = 60
_FAILED = re.compile(r"ssl-launch: .*: rank (\d+) on (\S+) failed first, with exit code (\d+)")
_NUMBER = re.compile(r"\d+")
# Above what a rank says of one start: by whom it was started, and when.
_HEADER = re.compile(r"== \d{4}-\d\d-\d\d \d\d:\d\d:\d\d rank \d+")
_RANK = re.compile(r"\[rank\d+\]: ?")  # torch puts it before each line of a traceback
_TRACEBACK = "Traceback (most recent call last)"


def log_files(run_folder: Path) -> list[Path]:
    """The logs of scripts, then of ranks, by their numbers."""
    return [*script_logs(run_folder), *rank_logs(run_folder)]


def script_logs(run_folder: Path) -> list[Path]:
    """The logs of jobs' scripts, oldest job first."""
    return sorted((run_folder / "logs").glob("slurm-*.log"), key=_number)


def rank_logs(run_folder: Path) -> list[Path]:
    """The logs of ranks."""
    return sorted((run_folder / "logs").glob("rank-*.log"), key=_number)


def first_failure(run_folder: Path) -> str:
    """Which rank failed first in the last start that failed, and its error; empty if none did."""
    for path in reversed(script_logs(run_folder)):
        for line in reversed(tail(path, TAIL_BYTES)):
            if failure := failure_in(run_folder, line):
                return failure
    return ""


def failure_in(run_folder: Path, line: str) -> str:
    """The failure that a line of a script tells of, with the rank's error; empty if it does not."""
    told = _FAILED.match(line)
    if told is None:
        return ""
    log = run_folder / "logs" / f"rank-{told[1]}.log"
    lines = last_start(tail(log, TAIL_BYTES))
    error = error_lines(lines) or lines[-10:]
    said = "\n".join(error) if log.exists() else "its log is gone"
    return f"rank {told[1]} on {told[2]} failed first, with exit code {told[3]}:\n{said}"


def error_of(run_folder: Path, rank: int, place: str = "") -> str:
    """What went wrong in a rank, in a line; empty if it did not say.

    Args:
        run_folder: of the run.
        rank: whose log to read.
        place: which start of the run; the last one if it is empty.
    """
    lines = last_start(tail(run_folder / "logs" / f"rank-{rank}.log", TAIL_BYTES), place)
    return short_error(lines)


def short_error(lines: list[str]) -> str:
    """The first error among a rank's lines, in a line; empty if there is none."""
    block = error_lines(lines)
    if not block or not block[0].startswith(_TRACEBACK):
        return block[0] if block else ""
    # The exception is the first line that no place in the code has.
    return next((line for line in block[1:] if line[:1].strip()), block[0])


def last_start(lines: list[str], place: str = "") -> list[str]:
    """The lines of the last start that a log tells of; of the one whose header ends so, if given.

    A log that tells no starts apart is taken from its last error on.
    """
    told = starts_in(lines)
    if not told:
        errors = [number for number, line in enumerate(lines) if _is_error(line)]
        return lines[errors[-1] :] if errors else lines
    return next((block for header, block in reversed(told) if header.endswith(place)), [])


def starts_in(lines: list[str]) -> list[tuple[str, list[str]]]:
    """The header and the lines of each start that a rank's log tells of, oldest first."""
    headers = [number for number, line in enumerate(lines) if _HEADER.match(line)]
    return [
        (lines[start], lines[start + 1 : end])
        for start, end in itertools.pairwise([*headers, len(lines)])
    ]


def error_lines(lines: list[str]) -> list[str]:
    """The first error among a rank's lines; none if there is none."""
    plain = [_RANK.sub("", line, count=1) for line in lines]
    for number, line in enumerate(plain):
        if _is_error(line):
            many = ERROR_LINES if _TRACEBACK in line else 1
            return plain[number : number + many]
    return []


def _is_error(line: str) -> bool:
    return _RANK.sub("", line, count=1).startswith(("error: ", _TRACEBACK))


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
        """Whole lines that were added since the last call.

        A failure that a script tells of later than in the first call comes as a block of its own.
        """
        is_first = not self._read
        for path in log_files(self._run_folder):
            lines = self._new_lines(path, is_first)
            who = path.stem.replace("slurm-", "job ").replace("rank-", "rank ")
            for line in lines[max(0, len(lines) - self._before) if is_first else 0 :]:
                yield f"{who}: {line}"
                if not is_first and (failure := failure_in(self._run_folder, line)):
                    yield f"\n{failure}\n"

    def _new_lines(self, path: Path, is_first: bool) -> list[str]:
        start = self._read.get(path, 0)
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                if is_first:
                    start = max(0, size - TAIL_BYTES)
                file.seek(start)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._read[path] = min(start, size) + len(whole)
        return whole.decode(errors="replace").splitlines()


def _number(path: Path) -> list[int]:
    return [int(number) for number in _NUMBER.findall(path.stem)]
