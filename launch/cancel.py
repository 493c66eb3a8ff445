"""End a submitted run for good: it saves first, and does not come back.

Submitting it again continues it. With --now it is ended at once, and loses the steps since the last
checkpoint; a job that still waits is simply taken out of the queue. Of a chain or a sweep, all jobs
are ended.
"""

import argparse
import sys
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .slurm.client.ending import will_not_come_back
from .slurm.client.jobs import JobState, ask_jobs, run_slurm
from .slurm.client.record import read_launches
from .slurm.groups.groups import members

EXAMPLES = """examples:
  ssl-launch cancel runs/first
  ssl-launch cancel runs/first --now
  ssl-launch cancel runs/road                all links of a chain
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN", help="the folder of a run, a chain or a sweep"
    )
    parser.add_argument("--now", action="store_true", help="do not save first")


def run(arguments: argparse.Namespace) -> int:
    """End the last jobs of the runs; returns the exit code."""
    folder: Path = arguments.run_folder
    runs = members(folder) or [folder]
    jobs = {run: str(launches[-1]["job"]) for run in runs if (launches := read_launches(run))}
    if not jobs:
        raise SslScaleError(f"{folder}: must be a run that was submitted, but is none")
    states = ask_jobs(list(jobs.values())).states
    lives = {run: job for run, job in jobs.items() if job in states and not states[job].is_over}
    if not lives:
        told = [
            f"{job} {states[job].state if job in states else 'unknown to Slurm'}"
            for job in jobs.values()
        ]
        raise SslScaleError(
            f"a job of {folder} must be in the queue, but none is: {', '.join(told)}"
        )
    # What waits goes first, or the end of what it waits for might start it.
    for run, job in reversed(lives.items()):
        end(run, job, states[job], arguments.now)
    return 0


def end(run: Path, job: str, state: JobState, now: bool) -> None:
    """End a job, at once or after it has saved."""
    will_not_come_back(run, job)
    saves = state.state == "RUNNING" and not now
    words = ["--batch", "--signal=USR1", job] if saves else [job]
    if run_slurm("scancel", *words) is None:
        raise SslScaleError(f"scancel must end job {job}, but failed; try: scancel {job}")
    print(f"ssl-launch: job {job} {'saves and ends' if saves else 'ends'}", file=sys.stderr)
