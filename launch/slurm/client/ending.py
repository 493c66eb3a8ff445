"""Ending jobs that were submitted."""

from collections.abc import Sequence
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .jobs import run_slurm


def will_not_come_back(run_folder: Path, job: str) -> None:
    """Leave word for a job's script, which looks for it before it goes back to the queue."""
    (run_folder / "launch" / f"cancel-{job}").touch()


def take_back(submitted: Sequence[tuple[Path, str]]) -> str:
    """Cancel jobs that were submitted just now, those that wait for others first; tells which.

    Args:
        submitted: run folder and job, in the order of their submission.
    """
    for folder, job in reversed(submitted):
        will_not_come_back(folder, job)
        if run_slurm("scancel", job) is None:
            raise SslScaleError(f"scancel must end job {job}, but failed; try: scancel {job}")
    jobs = ", ".join(job for _, job in submitted)
    return f"jobs submitted before were cancelled again: {jobs}" if jobs else "nothing was queued"
