"""Ending jobs that were submitted."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from .command import run_slurm
from .record import cancel_mark


def will_not_come_back(run_folder: Path, job: str) -> None:
    """Leave word for a job's script, which looks for it before it goes back to the queue."""
    cancel_mark(run_folder, job).touch()


def take_back(submitted: Sequence[tuple[Path, str]]) -> str:
    """Cancel jobs that were submitted just now, those that wait for others first.

    Args:
        submitted: run folder and job, in the order of their submission.

    Returns:
        Which were cancelled, and which could not be.
    """
    left = []
    for folder, job in reversed(submitted):
        with contextlib.suppress(OSError):  # a job that is cancelled does not come back anyway
            will_not_come_back(folder, job)
        if run_slurm("scancel", job) is None:
            left.append(job)
    gone = [job for _, job in submitted if job not in left]
    told = []
    if gone:
        told.append(f"jobs submitted before were cancelled again: {', '.join(gone)}")
    if left:
        told.append(f"scancel failed for jobs that are queued; try: scancel {' '.join(left)}")
    return "; ".join(told) or "nothing was queued"
