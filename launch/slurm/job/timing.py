"""How long a job may take, and how long before its end a run must be told to save."""

import re
from pathlib import Path

from ssl_scale.errors import SslScaleError

# How long it takes from the signal to the end where nothing was measured yet.
UNMEASURED_S = 120
# Above what was measured: Slurm looks at its clock every half minute.
MARGIN_S = 30
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


def seconds_of(time: str) -> int:
    """The seconds of a time in Slurm's notation.

    Args:
        time: ``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours`` and so on.

    Raises:
        SslScaleError: it is none of these.
    """
    match = _TIME.fullmatch(time)
    if match is None:
        raise SslScaleError(
            "--time must read minutes, hours:minutes:seconds or days-hours:minutes:seconds, but "
            f"is {time!r}"
        )
    days, first, second, third = (None if part is None else int(part) for part in match.groups())
    if days is not None:
        return days * 86400 + (first or 0) * 3600 + (second or 0) * 60 + (third or 0)
    if third is not None:
        return (first or 0) * 3600 + (second or 0) * 60 + third
    return (first or 0) * 60 + (second or 0)


def stop_before_s(run_folder: Path) -> int:
    """How long before a job's end the run is told to stop: twice the slowest stop, and a margin.

    Args:
        run_folder: holds what earlier jobs of the run measured, from the signal to their end.
    """
    try:
        lines = (run_folder / "launch" / "stop_seconds").read_text().split()
    except FileNotFoundError:
        return UNMEASURED_S
    measured = [int(line) for line in lines if line.isdecimal()]
    return 2 * max(measured) + MARGIN_S if measured else UNMEASURED_S
