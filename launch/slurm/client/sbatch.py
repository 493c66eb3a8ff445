"""Handing a script to Slurm, and keeping a record of it."""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .record import add_launch


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


def hand_over(script: Path, options: Sequence[str], directory: Path) -> Accepted:
    """Call sbatch.

    Args:
        script: what is submitted.
        options: of sbatch, each one word; no shell reads them.
        directory: where the job runs; relative paths in it mean something there.

    Raises:
        SslScaleError: Slurm refuses.
    """
    command = ("sbatch", "--parsable", *options, str(script))
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=directory,
    )
    if done.returncode:
        raise SslScaleError(f"sbatch must accept the job, but says: {done.stderr.strip()}")
    sys.stderr.write(done.stderr)
    number, _, cluster = done.stdout.strip().partition(";")
    return Accepted(number, cluster, command)


def sbatch(run_folder: Path, script: Path, options: Sequence[str], directory: Path) -> str:
    """Submit a run's script and keep a record of it; returns the job's number.

    Args:
        run_folder: keeps the record.
        script: lies in it.
        options: of sbatch, each one word; no shell reads them.
        directory: where the job runs; relative paths in it mean something there.

    Raises:
        SslScaleError: Slurm refuses.
    """
    accepted = hand_over(script, options, directory)
    add_launch(run_folder, accepted.job, accepted.cluster, script, options, directory)
    return accepted.job
