"""Submitting again what was submitted before: a run, or what is left of a chain or a sweep."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ssl_scale.errors import SslScaleError

from ..client.command import run_slurm
from ..client.ending import take_back, will_not_come_back
from ..client.jobs import states_of
from ..client.living import LivingJob, living_jobs, refuse_living
from ..client.record import read_launches
from ..client.sbatch import sbatch
from ..groups.dependencies import afterok, without_dependencies
from ..groups.links import Link
from ..groups.sweep import Sweep
from .sweeps import submit_again


def resume_run(folder: Path, waits: Sequence[str] = ()) -> str:
    """Submit a run as it was submitted last; returns its job.

    Args:
        folder: of the run, an absolute path.
        waits: jobs that must succeed before it.

    Raises:
        SslScaleError: it is done, or in the queue, or what was submitted is gone.
    """
    launches = read_launches(folder)
    if not launches:
        raise SslScaleError(f"{folder}: must be a run that was submitted, but is none")
    if (folder / "COMPLETED").exists():
        raise SslScaleError(f"{folder}: must be a run that is not done, but it is completed")
    last = launches[-1]
    refuse_living([folder])
    script = folder / "launch" / Path(last["script"]).name
    if not script.is_file():
        raise SslScaleError(f"{script}: must be the run's script, but is gone; submit it again")
    directory = Path(last["directory"])
    if not directory.is_dir():
        raise SslScaleError(f"{directory}: must be where the run was submitted, but is gone")
    # What the run waited for has happened, and Slurm may have forgotten it.
    options = [*without_dependencies(last["options"]), *afterok(waits)]
    return sbatch(folder, script, options, directory)


def resume_links(folder: Path, links: Sequence[Link]) -> list[str]:
    """Submit the links of a chain that are neither done nor on their way; returns their jobs.

    Args:
        folder: of the chain, an absolute path.
        links: of it.

    Raises:
        SslScaleError: nothing is left to do, or a link cannot be submitted; then none is.
    """
    known = _in_queue([folder / link.name for link in links])
    jobs: dict[str, str] = {}
    submitted: list[tuple[Path, str]] = []
    for link in links:
        run = folder / link.name
        if (run / "COMPLETED").exists():
            continue
        again = any((folder / name, jobs.get(name)) in submitted for name in link.after)
        try:
            if run in known and not again:
                jobs[link.name] = known[run].job
                continue
            if run in known:
                _end_waiting(known[run])
            jobs[link.name] = resume_run(run, [jobs[name] for name in link.after if name in jobs])
        except BaseException as error:
            told = take_back(submitted)
            if isinstance(error, SslScaleError):
                raise SslScaleError(f"{error}; {told}") from error
            raise
        submitted.append((run, jobs[link.name]))
    if not submitted:
        raise _nothing_to_do(folder)
    return [job for _, job in submitted]


def resume_tasks(folder: Path, sweep: Sweep) -> str:
    """Submit the tasks of a sweep that are neither done nor on their way; returns the array's job.

    Raises:
        SslScaleError: nothing is left to do, or the array cannot be submitted.
    """
    runs = [folder / task.name for task in sweep.tasks]
    known = _in_queue(runs)
    left = [
        number
        for number, run in enumerate(runs)
        if run not in known and not (run / "COMPLETED").exists()
    ]
    if not left:
        raise _nothing_to_do(folder)
    return submit_again(folder, sweep, left)


def _in_queue(runs: Sequence[Path]) -> Mapping[Path, LivingJob]:
    """Run -> its last job that is in the queue, of the runs that have one."""
    return {living.run: living for living in living_jobs(runs)}


def _end_waiting(living: LivingJob) -> None:
    """End a job that waits for one that is gone, so that it can wait for the new one."""
    run, job = living.run, living.job
    if living.state.state != "PENDING":
        raise SslScaleError(
            f"job {job} of {run} must wait for the link before, but is {living.state.state}; "
            f"cancel it first: ssl-launch cancel {run}"
        )
    will_not_come_back(run, job)
    if run_slurm("scancel", job) is None:
        raise SslScaleError(f"scancel must end job {job}, but failed; try: scancel {job}")
    if (now := states_of([job]).get(job)) is not None and not now.is_over:
        raise SslScaleError(f"job {job} of {run} must have ended, but is {now.state}; try again")


def _nothing_to_do(folder: Path) -> SslScaleError:
    return SslScaleError(
        f"{folder}: must have runs that are neither done nor in the queue, but has none"
    )
