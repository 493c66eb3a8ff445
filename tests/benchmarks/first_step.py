"""From the command to the first step: ``ssl-launch local --processes 2 demo``, on data that exists.

The first step's time is what the run itself wrote into metrics.jsonl, so that what comes after it,
saving and leaving, does not count.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks._demo import bindings, command, make_data
from tests.benchmarks.run import Row

GOAL_S = 20.0
REPEATS = 3
LIBRARIES = "import torch, deepspeed, lightning.pytorch"


def rows() -> list[Row]:
    """Launch, and import the libraries that any such program needs, in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder)
        took = [(first_step_s(folder, number), imports_s(folder)) for number in range(REPEATS)]
    value = statistics.median(ours for ours, _ in took)
    return [
        {
            "measure": "from ssl-launch to the first step of the demo, 2 processes",
            "value": round(value, 1),
            "unit": "s",
            "against": "two processes that only import torch, deepspeed and lightning",
            "ratio": round(statistics.median(ours / theirs for ours, theirs in took), 2),
            "goal": f"at most {GOAL_S:g} s",
            "met": value <= GOAL_S,
        }
    ]


def first_step_s(folder: Path, number: int) -> float:
    """Seconds until the first step was done."""
    data = [f"--data={role}={path}" for role, path in bindings(folder).items()]
    options = ("--max-steps=1", "--set=train.log_every=1", f"--run-folder=runs/{number}")
    began = time.time()
    command("ssl-launch", "local", "--processes=2", "demo", *data, *options, folder=folder)
    lines = (folder / f"runs/{number}/metrics.jsonl").read_text().splitlines()
    first = next(line for line in map(json.loads, lines) if line["kind"] == "train")
    return float(first["time"]) - began


def imports_s(folder: Path) -> float:
    """Seconds that two processes side by side take to import the libraries alone."""
    began = time.perf_counter()
    code = [sys.executable, "-c", LIBRARIES]
    both = [subprocess.Popen(code, cwd=folder, stderr=subprocess.DEVNULL) for _ in range(2)]
    for process in both:
        if process.wait():
            raise RuntimeError(f"{LIBRARIES!r} must succeed, but exited with {process.returncode}")
    return time.perf_counter() - began
