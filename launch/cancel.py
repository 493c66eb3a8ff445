"""End a submitted run for good: it saves first, and does not come back.

Submitting it again continues it. With --now it is ended at once, and loses the steps since the last
checkpoint; a job that still waits is simply taken out of the queue.
"""

import argparse
import sys
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .slurm.jobs import ask_slurm, run_slurm
from .slurm.record import read_launches

EXAMPLES = """examples:
  ssl-launch cancel runs/first
  ssl-launch cancel runs/first --now
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--now", action="store_true", help="do not save first")


def run(arguments: argparse.Namespace) -> int:
    """End the run's last job; returns the exit code."""
    folder: Path = arguments.run_folder
    launches = read_launches(folder)
    if not launches:
        raise SslScaleError(f"{folder}: must be a run that was submitted, but is none")
    job = launches[-1]["job"]
    state = ask_slurm(job)
    if state is None or state.is_over:
        raise SslScaleError(
            f"job {job} of {folder} must be in the queue, but is "
            f"{'unknown to Slurm' if state is None else state.state}"
        )
    # The script looks for this before it goes back to the queue.
    (folder / "launch" / f"cancel-{job}").touch()
    saves = state.state == "RUNNING" and not arguments.now
    words = ["--batch", "--signal=USR1", job] if saves else [job]
    if run_slurm("scancel", *words) is None:
        raise SslScaleError(f"scancel must end job {job}, but failed; try: scancel {job}")
    print(
        f"ssl-launch: job {job} {'saves and ends' if saves else 'ends'}",
        file=sys.stderr,
    )
    return 0
