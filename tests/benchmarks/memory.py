"""Memory of ranks: the demo's peak, saving included; and a model's states against formulas."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks._demo import bindings, make_data
from tests.benchmarks._memory_states import state_rows
from tests.benchmarks.run import Row

STEPS = 12
# A rank, and a line with its peak when it ends. On Linux ru_maxrss counts KiB.
RANK = """
import json, resource, sys
from pathlib import Path
from ssl_scale.cli.main import main
code = main(sys.argv[2:])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
Path(sys.argv[1]).write_text(json.dumps({"code": code, "peak_kib": peak}))
"""
LIBRARIES = (
    "import torch, deepspeed, lightning.pytorch, resource; "
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
)


def rows() -> list[Row]:
    """Peaks of the demo, then states of a model of a few million parameters."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peaks, states = folder / "peaks", folder / "states"
        peaks.mkdir()
        states.mkdir()
        return [*peak_rows(peaks), *state_rows(states)]


def peak_rows(folder: Path) -> list[Row]:
    """One process, then two; against a process that only imports the libraries."""
    make_data(folder)
    bare_mib = imported_mib(folder)
    return [
        {
            "measure": f"peak memory of rank {rank} of {world}, the demo, ZeRO-2",
            "value": round(peak_mib),
            "unit": "MiB",
            "against": "a process that only imports torch, deepspeed and lightning",
            "ratio": round(peak_mib / bare_mib, 2),
            "goal": None,
            "met": None,
        }
        for world in (1, 2)
        for rank, peak_mib in enumerate(peaks_mib(folder, world))
    ]


def imported_mib(folder: Path) -> float:
    """Peak memory of a process that imports the libraries and ends."""
    code = ["-c", LIBRARIES]
    done = subprocess.run(
        [sys.executable, *code], cwd=folder, env=_environment(), capture_output=True, check=True
    )
    return int(done.stdout.split()[-1]) / 1024


def peaks_mib(folder: Path, world_size: int) -> list[float]:
    """Train some steps; the peak of each rank."""
    run = folder / f"runs/{world_size}"
    data = [f"--data={role}={path}" for role, path in bindings(folder).items()]
    fit = ["fit", "demo", f"--run-folder={run}", f"--max-steps={STEPS}", "--set=train.save_every=6"]
    meeting = (folder / f"rendezvous-{world_size}").as_uri()
    notes = [folder / f"peak-{world_size}-{rank}.json" for rank in range(world_size)]
    ranks = []
    for rank, note in enumerate(notes):
        places = {
            "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size,
            "LOCAL_WORLD_SIZE": world_size, "SSL_SCALE_RENDEZVOUS": meeting,
        }  # fmt: skip
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-c", RANK, str(note), *fit, *data],
                cwd=folder,
                env=_environment() | {key: str(value) for key, value in places.items()},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        )
    ends = [process.communicate() for process in ranks]
    for process, (_, errors), note in zip(ranks, ends, notes, strict=True):
        if process.returncode or json.loads(note.read_text())["code"]:
            raise RuntimeError(f"a rank failed: {errors.decode()[-3000:]}")
    return [json.loads(note.read_text())["peak_kib"] / 1024 for note in notes]


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}
