"""Jobs of runs that are in the queue still: any that is on record, not only the last."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .jobs import JobState, states_of
from .record import read_launches


@dataclass(frozen=True)
class LivingJob:
    """A job in the queue.

    Args:
        run: folder of its run.
        job: its number.
        state: of it.
    """

    run: Path
    job: str
    state: JobState


def recorded_jobs(run: Path) -> list[str]:
    """The numbers of a run's jobs, oldest first."""
    return list(dict.fromkeys(str(entry["job"]) for entry in read_launches(run)))


def living_jobs(runs: Sequence[Path]) -> list[LivingJob]:
    """The jobs of runs that are in the queue, in the order of the runs; Slurm is asked once.

    Raises:
        SslScaleError: a record is damaged, or Slurm could not be asked.
    """
    jobs = [(run, job) for run in runs for job in recorded_jobs(run)]
    states = states_of([job for _, job in jobs])
    return [
        LivingJob(run, job, states[job])
        for run, job in jobs
        if job in states and not states[job].is_over
    ]


def refuse_living(runs: Sequence[Path]) -> None:
    """Refuse to submit runs of which one has a job in the queue: two would train one run.

    Raises:
        SslScaleError: one has; says which, and how to end it.
    """
    for living in living_jobs(runs):
        raise SslScaleError(
            f"job {living.job} of {living.run} must have ended, but is {living.state.state}; it "
            f"comes back by itself; end it first: ssl-launch cancel {living.run}"
        )
