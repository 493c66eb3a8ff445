"""The starts of a run's jobs, as the logs of their scripts tell them."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from .rank_logs import script_logs
from .tail import tail

TAIL_BYTES = 1 << 18
WHEN = "%Y-%m-%d %H:%M:%S"
_SAID = re.compile(r"ssl-launch: (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d): (.*)")
_BEGAN = re.compile(r"job (\S+), restart (\d+), on (\S+): ")


@dataclass(frozen=True)
class Start:
    """One start of a job.

    Args:
        job: its number.
        restart: how often it had been started before.
        began: when, as the script's host tells the time; empty if that is not on record.
        lines: what was said from then on, by the script (without who and when) and by Slurm.
        last: when the script said something last.
    """

    job: str
    restart: int
    began: str
    lines: tuple[str, ...]
    last: str

    @property
    def began_at(self) -> float:
        """When it began, in seconds since 1970; 0 if that is not on record."""
        return time.mktime(time.strptime(self.began, WHEN)) if self.began else 0.0

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether the ranks were told to save and stop."""
        return any("asking the ranks to save and stop" in line for line in self.lines)


def read_starts(run_folder: Path) -> list[Start]:
    """The starts that are on record, oldest first."""
    return [start for path in script_logs(run_folder) for start in _starts_of(path)]


def _starts_of(path: Path) -> list[Start]:
    starts: list[Start] = []
    job = path.stem.removeprefix("slurm-")
    current = Start(job, 0, "", (), "")
    for line in tail(path, TAIL_BYTES):
        said = _SAID.match(line)
        when, text = (said[1], said[2]) if said else (current.last, line)
        if said and (began := _BEGAN.match(text)):
            starts.append(current)
            current = Start(began[1], int(began[2]), when, (), when)
        else:
            lines = (*current.lines, text)
            current = Start(current.job, current.restart, current.began, lines, when)
    return [start for start in (*starts, current) if start.began or start.lines]
