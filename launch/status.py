"""Tell how a submitted run fares: its job, how far it is, and what stopped it last.

The job's state is Slurm's while Slurm knows it; all else, and everything once it has forgotten,
comes from the run's own folder.
"""

import argparse
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .slurm.jobs import JobState, ask_slurm
from .slurm.progress import Progress, read_progress
from .slurm.record import read_launches

EXAMPLES = """examples:
  ssl-launch status runs/first
  ssl-launch status runs/*
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")


def run(arguments: argparse.Namespace) -> int:
    """Tell the state of each run; returns the exit code."""
    for folder in arguments.runs:
        if not folder.is_dir():
            raise SslScaleError(f"{folder}: must be the folder of a run, but there is none")
        launches = read_launches(folder)
        job = launches[-1]["job"] if launches else None
        state = None if job is None else ask_slurm(job)
        print("\n".join(describe(folder, job, state, read_progress(folder))))
    return 0


def describe(
    folder: Path, job: str | None, state: JobState | None, progress: Progress
) -> list[str]:
    """The lines that tell of a run."""
    lines = [str(folder), f"  job       {_describe_job(job, state, progress)}"]
    total = "" if progress.total is None else f" of {progress.total:,}"
    reached = f"step {progress.step:,}{total}"
    if progress.loss is not None:
        reached += f", loss {progress.loss:.4g}"
    if progress.samples_per_s is not None:
        reached += f", {progress.samples_per_s:.4g} samples/s"
    lines.append(f"  progress  {reached}; started {progress.attempts} times")
    if progress.said:
        lines.append(f"  last said {progress.said}")
    return lines


def _describe_job(job: str | None, state: JobState | None, progress: Progress) -> str:
    ending = "; the run is completed" if progress.is_completed else ""
    if job is None:
        return f"none was submitted{ending}"
    if state is None:
        return f"{job}: Slurm does not know it (any more){ending}"
    reason = f" ({state.reason})" if state.reason else ""
    nodes = f" on {state.nodes}" if state.nodes and not state.is_over else ""
    waits = f", not before {state.start}" if state.state == "PENDING" and state.start else ""
    return f"{job}: {state.state}{reason}{nodes}{waits}, restarts {state.restarts}{ending}"
