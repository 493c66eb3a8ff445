"""End a submitted run for good: it saves first, and does not come back.

Submitting it again continues it. With --now it is ended at once, and loses the steps since the last
checkpoint; a job that still waits is simply taken out of the queue. Of a chain or a sweep, all jobs
are ended.
"""

import argparse
import sys
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .slurm.client.command import run_slurm
from .slurm.client.ending import will_not_come_back
from .slurm.client.living import LivingJob, living_jobs, recorded_jobs
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
    """End all jobs of the runs that are in the queue; returns the exit code."""
    folder: Path = arguments.run_folder
    runs = members(folder) or [folder]
    jobs = [job for run in runs for job in recorded_jobs(run)]
    if not jobs:
        raise SslScaleError(f"{folder}: must be a run that was submitted, but is none")
    lives = living_jobs(runs)
    if not lives:
        raise SslScaleError(
            f"a job of {folder} must be in the queue, but none is: jobs {', '.join(jobs)} have "
            "ended, or are unknown to Slurm"
        )
    # What waits goes first, or the end of what it waits for might start it.
    failures = [failure for living in reversed(lives) if (failure := end(living, arguments.now))]
    if failures:
        raise SslScaleError(f"all jobs of {folder} must end, but not all do: {'; '.join(failures)}")
    return 0


def end(living: LivingJob, now: bool) -> str:
    """End a job, at once or after it has saved; returns why that failed, empty if it did not."""
    job, saves = living.job, living.state.state == "RUNNING" and not now
    try:
        will_not_come_back(living.run, job)
    except OSError as error:
        if saves:  # or it would save and come back
            return f"job {job} cannot be told to stay away ({error}); end it with --now"
    words = ["--batch", "--signal=USR1", job] if saves else [job]
    if run_slurm("scancel", *words) is None:
        return f"scancel failed for job {job}; try: scancel {job}"
    print(f"ssl-launch: job {job} {'saves and ends' if saves else 'ends'}", file=sys.stderr)
    return ""
