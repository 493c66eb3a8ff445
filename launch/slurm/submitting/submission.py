"""One run on its way to Slurm: what it is made of, the check before, the script, the hand-over."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_scale.errors import SslScaleError

from ...fit_command import fit_arguments, ssl_scale_program
from ..client.saying import tell
from ..client.sbatch import Refused, options_of_folder, sbatch
from ..job.profile import Profile
from ..job.script import Job
from ..job.timing import seconds_of, stop_before_s
from .forecast import Forecast, check, plan
from .kept_scripts import keep_script
from .passed_on import passed_to_sbatch

BACKOFF_S = 30


@dataclass(frozen=True)
class Run:
    """Which run, and of what.

    Args:
        recipe: a recipe's name or file.
        folder: of the run, an absolute path.
        name: that it is given; its recipe's if None.
        data: bindings, ``NAME=PATH``.
        overrides: of the recipe, ``path.to.key=value``.
        earlier: folders of runs that must be completed before it begins.
    """

    recipe: str
    folder: Path
    name: str | None
    data: tuple[str, ...]
    overrides: tuple[str, ...]
    earlier: tuple[Path, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """Recipe, bindings and overrides as ``ssl-scale`` takes them, each one word."""
        bound = (f"--data={pair}" for pair in self.data)
        return (self.recipe, *bound, *(f"--set={override}" for override in self.overrides))


@dataclass(frozen=True)
class Submission:
    """What is to be submitted.

    Args:
        run: which run.
        job: what the script is made of.
        options: of sbatch, beyond those in the script; each one word.
    """

    run: Run
    job: Job
    options: tuple[str, ...]


def prepare(arguments: argparse.Namespace, run: Run, profile: Profile) -> Submission:
    """Work out what to submit.

    Args:
        arguments: the parsed command line.
        run: which run.
        profile: what the cluster needs.

    Raises:
        SslScaleError: an option cannot be.
    """
    processes = arguments.processes_per_node or arguments.gpus or 1
    for name, least in {"nodes": 1, "gpus": 0, "processes_per_node": 1, "max_restarts": 0}.items():
        value = getattr(arguments, name)
        if value is not None and value < least:
            option = name.replace("_", "-")
            raise SslScaleError(f"--{option} must be at least {least}, but is {value}")
    if arguments.gpus and processes > arguments.gpus:
        raise SslScaleError(
            f"--processes-per-node must be at most {arguments.gpus}, the GPUs of a host, but is "
            f"{processes}"
        )
    time, before = _times(arguments, profile, run.folder)
    is_inside = profile.container is not None
    program = "ssl-scale" if is_inside else ssl_scale_program()
    job = Job(
        run_folder=run.folder,
        program=(
            program,
            *fit_arguments(run.recipe, run.folder, run.name, run.data, run.overrides),
        ),
        nodes=arguments.nodes,
        processes_per_node=processes,
        gpus=arguments.gpus,
        gpu_option=profile.gpu_option,
        time=time,
        stop_before_s=before,
        partition=arguments.partition or profile.partition or os.environ.get("SBATCH_PARTITION"),
        account=arguments.account or profile.account or os.environ.get("SBATCH_ACCOUNT"),
        cpus_per_task=profile.cpus_per_task,
        modules=profile.modules,
        variables={**profile.environment, **profile.network},
        tools=None if is_inside else Path(program).parent,
        container=profile.container,
        max_restarts=arguments.max_restarts,
        backoff_s=BACKOFF_S,
        exclude_failed=arguments.exclude_failed or profile.exclude_failed,
        earlier=run.earlier,
    )
    passed_on = passed_to_sbatch([*profile.sbatch, *arguments.others])
    return Submission(run, job, (*options_of_folder(run.folder), *passed_on))


def _times(arguments: argparse.Namespace, profile: Profile, run_folder: Path) -> tuple[str, int]:
    time = arguments.time or profile.time
    if time is None:
        raise SslScaleError("--time must be given, here or in the profile, but is not")
    measured = stop_before_s(run_folder)
    before = measured if arguments.stop_before is None else arguments.stop_before
    if not 0 < before < seconds_of(time):
        raise SslScaleError(
            f"--stop-before must be above 0 and below --time ({seconds_of(time)} s), but is "
            f"{before} s"
        )
    return time, before


def forecast(
    arguments: argparse.Namespace, submission: Submission, profile: Profile, more: Sequence[str]
) -> dict[str, Any]:
    """Check the recipe and tell what the run will need; returns what the check found.

    Args:
        arguments: the parsed command line.
        submission: what is to be submitted.
        profile: what the cluster needs.
        more: further arguments of the check.

    Raises:
        SslScaleError: the recipe is wrong, or does not fit.
    """
    program, words = ssl_scale_program(), submission.run.words
    found = check(program, [*words, *more])
    if not arguments.gpus:
        tell("no plan: the run uses no GPU")
        return found
    told = plan(program, words, arguments.nodes, arguments.gpus, profile.gpu_type)
    must_fit(told, arguments.force)
    return found


def must_fit(told: Forecast, is_forced: bool) -> None:
    """Tell a plan.

    Raises:
        SslScaleError: the run does not fit, and nobody said that it need not.
    """
    for line in told.lines:
        tell(line)
    if not (told.fits or is_forced):
        raise SslScaleError(
            "the run must fit into its GPUs' memory, but does not; change it as advised above, or "
            "--force to submit it all the same"
        )


def submit(submission: Submission, script: str, waits: Sequence[str]) -> str:
    """Keep the script in the run's folder and submit it; returns the job's number.

    Args:
        submission: what is submitted.
        script: its text.
        waits: options of sbatch that say what the job waits for.

    Raises:
        SslScaleError: the folder cannot be written, sbatch refuses, or the job is not on record.
    """
    folder = submission.run.folder
    path = keep_script(folder, script)
    try:
        return sbatch(folder, path, [*submission.options, *waits], Path.cwd())
    except Refused:
        path.unlink()
        raise
