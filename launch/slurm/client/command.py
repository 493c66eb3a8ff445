"""Running Slurm's commands, so that nothing around them decides what they do."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .packages import search_path

ANSWERS_S = 60.0
# How Slurm is found, and who we are to it. All else that is named like Slurm's own variables would
# silently go before a script's lines or a command's options: it belongs to a job around this shell.
_OF_THE_CLUSTER = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
# A site's defaults that no line of our scripts speaks of.
OF_THE_SITE = ("SBATCH_QOS", "SBATCH_RESERVATION", "SBATCH_CONSTRAINT", "SBATCH_WCKEY")
_DECIDING = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SCANCEL_", "SACCT_", "SINFO_")


def slurm_environment(
    environment: Mapping[str, str] = os.environ, configuration: Path | None = None
) -> dict[str, str]:
    """The variables for Slurm's commands; a job inherits all of its submitter's others.

    Args:
        environment: of this shell.
        configuration: slurm.conf of the cluster that is meant; the shell's own if None.
    """
    kept = (*_OF_THE_CLUSTER, *OF_THE_SITE) if configuration is None else ()
    others = {
        name: value
        for name, value in environment.items()
        if name in kept or not name.startswith(_DECIDING)
    }
    ours = {} if configuration is None else {"SLURM_CONF": str(configuration)}
    return {**others, **ours, "PATH": search_path(environment)}


def call_slurm(
    *words: str,
    environment: Mapping[str, str] = os.environ,
    limit_s: float = ANSWERS_S,
    directory: Path | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run one of Slurm's commands; one that is not there or cannot be run has failed.

    Args:
        words: of the command; no shell reads them.
        environment: of this shell.
        limit_s: how long it may take.
        directory: where it runs; here if None.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    try:
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=limit_s,
            cwd=directory,
            env=slurm_environment(environment),
        )
    except FileNotFoundError:
        failure = f"{words[0]} is not installed here"
    except OSError as error:
        failure = f"{words[0]}: {error}"
    return subprocess.CompletedProcess(words, 127, "", failure)


def ask(
    *words: str, environment: Mapping[str, str] = os.environ
) -> "subprocess.CompletedProcess[str]":
    """Run one of Slurm's commands; one that does not end in time has failed, too."""
    try:
        return call_slurm(*words, environment=environment)
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(words, 127, "", f"{words[0]}: {error}")


def run_slurm(*words: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """What one of Slurm's commands printed; None if it failed or is not there."""
    done = ask(*words, environment=environment)
    return done.stdout if done.returncode == 0 else None
