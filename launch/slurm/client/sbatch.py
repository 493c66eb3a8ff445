"""Handing a script to Slurm, and keeping a record of it."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .command import OF_THE_SITE, call_slurm, run_slurm
from .record import add_launch, read_launches
from .saying import tell

# A busy controller may take a minute, and what it has taken by then it keeps.
# What a shell says of these stands in the script, unless an option or the profile says otherwise.
IN_THE_SCRIPT = ("SBATCH_ACCOUNT", "SBATCH_PARTITION")
SUBMITS_S = 120.0
_TOLD = re.compile(r"(?P<job>[0-9]+)(;(?P<cluster>\S+))?")


def options_of_folder(run_folder: Path) -> list[str]:
    """The options that follow from where a run keeps its files: a label, and the script's log."""
    label = re.sub(r"[^A-Za-z0-9_.+-]", "_", run_folder.name)
    # Slurm knows patterns such as %j.
    folder = str(run_folder).replace("%", "%%")
    return [f"--job-name={label}", f"--output={folder}/logs/slurm-%j.log"]


@dataclass(frozen=True)
class Accepted:
    """What became of a script that Slurm took.

    Args:
        job: its number.
        cluster: Slurm's name of the cluster, where sbatch told it.
        command: what was called.
    """

    job: str
    cluster: str
    command: tuple[str, ...]


class Refused(SslScaleError):
    """Slurm did not take a script, so that nothing is queued."""


def hand_over(script: Path, options: Sequence[str], directory: Path) -> Accepted:
    """Call sbatch.

    Args:
        script: what is submitted.
        options: of sbatch, each one word; no shell reads them.
        directory: where the job runs; relative paths in it mean something there.

    Raises:
        Refused: Slurm refuses.
        SslScaleError: whether Slurm took it is not known.
    """
    command = ("sbatch", "--parsable", *options, str(script))
    known = (*OF_THE_SITE, *IN_THE_SCRIPT)
    given = sorted(name for name in os.environ if name.startswith("SBATCH_"))
    if left_out := [name for name in given if name not in known]:
        tell(f"{', '.join(left_out)} would go before the script's own lines, so it is left out")
    look = "look whether it is queued: squeue --me; and cancel it: scancel JOB"
    try:
        done = call_slurm(*command, limit_s=SUBMITS_S, directory=directory)
    except subprocess.TimeoutExpired as error:
        raise SslScaleError(
            f"sbatch must answer within {SUBMITS_S:g} s, but did not; {look}"
        ) from error
    if done.returncode:
        raise Refused(f"sbatch must accept the job, but says: {done.stderr.strip()}")
    sys.stderr.write(done.stderr)
    if (told := _TOLD.fullmatch(done.stdout.strip())) is None:
        raise SslScaleError(
            f"sbatch must tell the job's number alone, but says: {done.stdout.strip()!r}; {look}"
        )
    return Accepted(told["job"], told["cluster"] or "", command)


@contextlib.contextmanager
def cancelled_unless_recorded(job: str) -> Iterator[None]:
    """Record a job in here that Slurm took just now; one that is not on record is cancelled.

    Raises:
        SslScaleError: it could not be recorded; says what became of it.
    """
    try:
        yield
    except BaseException as error:
        if run_slurm("scancel", job) is None:
            told = f"job {job} is queued, and scancel failed; cancel it: scancel {job}"
        else:
            told = f"job {job} was cancelled again"
        if isinstance(error, Exception):
            raise SslScaleError(f"the job must be recorded, but is not: {error}; {told}") from error
        tell(told)
        raise


def sbatch(run_folder: Path, script: Path, options: Sequence[str], directory: Path) -> str:
    """Submit a run's script and keep a record of it; returns the job's number.

    Args:
        run_folder: keeps the record.
        script: lies in it.
        options: of sbatch, each one word; no shell reads them.
        directory: where the job runs; relative paths in it mean something there.

    Raises:
        Refused: Slurm refuses.
        SslScaleError: the record is damaged or cannot be written.
    """
    read_launches(run_folder)  # what is damaged must be told before anything is queued
    accepted = hand_over(script, options, directory)
    with cancelled_unless_recorded(accepted.job):
        add_launch(run_folder, accepted.job, accepted.cluster, script, options, directory)
    return accepted.job
