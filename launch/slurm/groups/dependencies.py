"""What a job waits for: jobs that must have succeeded first."""

import re
from collections.abc import Sequence
from pathlib import Path

from ssl_scale.errors import SslScaleError

from ..client.jobs import states_of
from ..client.record import read_launches
from .groups import members

_DEPENDENCY = ("--dependency=", "--kill-on-invalid-dep=")
_JOB = re.compile(r"\d+(_\d+)?")


def afterok(jobs: Sequence[str]) -> list[str]:
    """The options of sbatch that make a job wait; none if there is nothing to wait for.

    A job that is requeued keeps its number, so that what waits for it goes on waiting. One that
    fails or is cancelled takes along what waits for it.
    """
    if not jobs:
        return []
    return [f"--dependency=afterok:{':'.join(jobs)}", "--kill-on-invalid-dep=yes"]


def without_dependencies(options: Sequence[str]) -> list[str]:
    """The options without those that `afterok` gives."""
    return [word for word in options if not word.startswith(_DEPENDENCY)]


def jobs_meant_by(after: str) -> list[str]:
    """The jobs that ``--after`` names; none if they have succeeded already.

    Args:
        after: a job's number, or the folder of a run, a chain or a sweep.

    Raises:
        SslScaleError: it is neither, a run has ended without being done, or Slurm could not be
            asked.
    """
    if _JOB.fullmatch(after):
        return [after]
    folder = Path(after)
    jobs = []
    # All of a group: a sweep is done when its slowest run is, and a chain may have been resumed in
    # part.
    for run in members(folder) or [folder]:
        if (run / "COMPLETED").exists():
            continue
        launches = read_launches(run) if run.is_dir() else []
        if not launches:
            raise SslScaleError(
                f"--after must be a job's number or the folder of a submitted run, but is {after!r}"
            )
        jobs.append(str(launches[-1]["job"]))
    states = states_of(jobs)
    for job in jobs:
        state = states.get(job)
        if state is None or state.is_over:
            raise SslScaleError(
                f"--after {after} must be done or in the queue, but job {job} is "
                f"{'unknown to Slurm' if state is None else state.state}; resume it first: "
                f"ssl-launch resume {after}"
            )
    return jobs
