"""How long a command takes to answer ``--help``: the median of several fresh processes."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.run import Row

GOAL_S = 1.0
REPEATS = 7
BARE = (sys.executable, "-c", "pass")
COMMANDS = (
    ("ssl-scale", "--help"),
    ("ssl-scale", "fit", "--help"),
    ("ssl-data", "--help"),
    ("ssl-data", "build", "--help"),
    ("ssl-launch", "--help"),
    ("ssl-launch", "local", "--help"),
)


def rows() -> list[Row]:
    """Time each command, against Python that starts and does nothing."""
    folder = Path(sys.executable).parent
    full = {words: (str(folder / words[0]), *words[1:]) for words in COMMANDS}
    medians = _medians_s([BARE, *full.values()])
    return [_row(" ".join(words), medians[full[words]], medians[BARE]) for words in COMMANDS]


def _row(measure: str, value: float, bare: float) -> Row:
    return {
        "measure": measure,
        "value": round(value, 3),
        "unit": "s",
        "against": "python -c pass",
        "ratio": round(value / bare, 1),
        "goal": f"at most {GOAL_S:g} s",
        "met": value <= GOAL_S,
    }


def _medians_s(commands: list[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
    """In turns, so that what else the machine does falls on all of them alike."""
    took: dict[tuple[str, ...], list[float]] = {command: [] for command in commands}
    for _ in range(REPEATS):
        for command in commands:
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            took[command].append(time.perf_counter() - began)
    return {command: statistics.median(seconds) for command, seconds in took.items()}
