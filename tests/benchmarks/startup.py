"""How long a command takes to answer ``--help``: the median of several fresh processes."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.run import Row

GOAL_S = 1.0
REPEATS = 7
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
    bare = _median_s((sys.executable, "-c", "pass"))
    folder = Path(sys.executable).parent
    return [
        _row(" ".join(words), _median_s((str(folder / words[0]), *words[1:])), bare)
        for words in COMMANDS
    ]


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


def _median_s(command: tuple[str, ...]) -> float:
    took = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        took.append(time.perf_counter() - began)
    return statistics.median(took)
