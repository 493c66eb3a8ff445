"""Submitting a sweep: one array of jobs, each task of it a run in a folder of its own."""

import argparse
import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ssl_scale.errors import SslScaleError

from ...fit_command import ssl_scale_program
from ..client.living import refuse_living
from ..client.record import ARRAYS, add_launch, content_of, put_back, read_launches
from ..client.saying import tell
from ..client.sbatch import (
    Accepted,
    Refused,
    cancelled_unless_recorded,
    hand_over,
    options_of_folder,
)
from ..groups.groups import refuse_other_group
from ..groups.sweep import NAME, Sweep, write_sweep
from ..job.array_script import render_array
from ..job.profile import Profile
from ..job.script import Job, render
from .forecast import check, plan_variants
from .kept_scripts import keep_script
from .no_secrets import refuse_secrets
from .passed_on import passed_to_sbatch
from .submission import Run, Submission, must_fit, prepare


def prepare_tasks(
    arguments: argparse.Namespace, folder: Path, sweep: Sweep, profile: Profile
) -> list[Submission]:
    """Check and plan every combination; nothing is written.

    Args:
        arguments: the parsed command line.
        folder: of the sweep, an absolute path.
        sweep: its tasks.
        profile: what the cluster needs.

    Raises:
        SslScaleError: a combination is wrong, and which; or one does not fit.
    """
    made = [
        prepare(
            arguments,
            Run(
                sweep.recipe,
                folder / task.name,
                None,
                tuple(arguments.data),
                (*arguments.set, *task.overrides),
            ),
            profile,
        )
        for task in sweep.tasks
    ]
    program = ssl_scale_program()
    words = Run(sweep.recipe, folder, None, tuple(arguments.data), tuple(arguments.set)).words
    with tempfile.TemporaryDirectory() as place:
        variants = Path(place) / "variants.json"
        variants.write_text(json.dumps([task.overrides for task in sweep.tasks]))
        check(program, [*words, f"--variants={variants}"])
        if not arguments.gpus:
            tell("no plan: the runs use no GPU")
        else:
            size = (arguments.nodes, arguments.gpus, profile.gpu_type)
            told = plan_variants(program, words, variants, *size)
            for task, each in zip(sweep.tasks, told, strict=True):
                tell(f"{task.name}:")
                must_fit(each, arguments.force)
    for submission in made:
        refuse_secrets(
            [*submission.job.program, render(submission.job), *submission.options], os.environ
        )
    return made


def array_job(made: Sequence[Submission]) -> Job:
    """What the array asks of Slurm: its tasks differ at most in when they are told to stop."""
    longest = max(submission.job.stop_before_s for submission in made)
    return dataclasses.replace(made[0].job, stop_before_s=longest)


def array_options(
    folder: Path, sweep: Sweep, numbers: Sequence[int], passed_on: Sequence[str]
) -> list[str]:
    """Options of sbatch for some of a sweep's tasks, each one word."""
    # %A_%a: the number of the array, and of the task.
    own = [word.replace("slurm-%j.log", "slurm-%A_%a.log") for word in options_of_folder(folder)]
    return [*own, sweep.array(numbers), *passed_on]


def submit_tasks(
    arguments: argparse.Namespace,
    folder: Path,
    sweep: Sweep,
    made: Sequence[Submission],
    profile: Profile,
    waits: Sequence[str],
) -> str:
    """Keep all scripts and submit the array; returns its job.

    Args:
        arguments: the parsed command line.
        folder: of the sweep.
        sweep: its tasks.
        made: what is submitted for each.
        profile: what the cluster needs.
        waits: options of sbatch that say what the array waits for.

    Raises:
        SslScaleError: a run is in the queue, a folder cannot be written, sbatch refuses, or the
            array could not be recorded.
    """
    refuse_other_group(folder, sweep)
    refuse_living([each.run.folder for each in made])
    read_launches(folder, ARRAYS)  # what is damaged must be told before anything is queued
    scripts = [keep_script(each.run.folder, render(each.job)) for each in made]
    wrapper = keep_script(folder, render_array(array_job(made), scripts))
    before = content_of(folder / NAME)
    write_sweep(folder, sweep)
    passed_on = passed_to_sbatch([*profile.sbatch, *arguments.others])
    options = array_options(folder, sweep, range(len(made)), passed_on)
    try:
        accepted = hand_over(wrapper, [*options, *waits], Path.cwd())
    except Refused:  # a corrected sweep may have the folder
        put_back(folder / NAME, before)
        for path in (wrapper, *scripts):
            path.unlink()
        raise
    with cancelled_unless_recorded(accepted.job):
        _record_array(folder, wrapper, options, accepted, Path.cwd())
        for number, (submission, script) in enumerate(zip(made, scripts, strict=True)):
            _record_task(
                submission.run.folder, script, submission.options, accepted, number, Path.cwd()
            )
    return accepted.job


def submit_again(folder: Path, sweep: Sweep, numbers: Sequence[int]) -> str:
    """Submit some tasks of a sweep as they were submitted last; returns the array's job.

    Raises:
        SslScaleError: what was submitted is gone, or sbatch refuses.
    """
    launches = read_launches(folder, ARRAYS)
    if not launches:
        raise SslScaleError(f"{folder}: must be a sweep that was submitted, but is none")
    last = launches[-1]
    wrapper, directory = folder / "launch" / last["script"], Path(last["directory"])
    for needed in (wrapper, directory):
        if not needed.exists():
            raise SslScaleError(f"{needed}: must be there, but is gone; submit the sweep again")
    kept = [word for word in last["options"] if not word.startswith("--array=")]
    options = [*kept, sweep.array(numbers)]
    runs = {number: folder / sweep.tasks[number].name for number in numbers}
    again = {number: _script_and_options(run, folder, kept) for number, run in runs.items()}
    accepted = hand_over(wrapper, options, directory)
    with cancelled_unless_recorded(accepted.job):
        _record_array(folder, wrapper, options, accepted, directory)
        for number, (script, of_task) in again.items():
            _record_task(runs[number], script, of_task, accepted, number, directory)
    return accepted.job


def _script_and_options(
    run: Path, folder: Path, of_array: Sequence[str]
) -> tuple[Path, Sequence[str]]:
    """With what a task was submitted last.

    Args:
        run: folder of the task.
        folder: of the sweep.
        of_array: the array's options, without the numbers of its tasks.

    Raises:
        SslScaleError: its record is damaged, or it has no script.
    """
    if launches := read_launches(run):
        return run / "launch" / launches[-1]["script"], launches[-1]["options"]
    # The disk may have been full when the array was recorded, task after task.
    scripts = sorted((run / "launch").glob("job-*.sh"))
    if not scripts:
        raise SslScaleError(f"{run}: must have a script, but has none; submit the sweep again")
    passed_on = of_array[len(options_of_folder(folder)) :]
    return scripts[-1], [*options_of_folder(run), *passed_on]


def _record_array(
    folder: Path, wrapper: Path, options: Sequence[str], accepted: Accepted, directory: Path
) -> None:
    """Keep what was submitted for all tasks together."""
    job, cluster = accepted.job, accepted.cluster
    add_launch(folder, job, cluster, wrapper, options, directory, name=ARRAYS)


def _record_task(
    run: Path,
    script: Path,
    options: Sequence[str],
    accepted: Accepted,
    number: int,
    directory: Path,
) -> None:
    """Keep what was submitted for one task; its options are those for it alone."""
    job = f"{accepted.job}_{number}"
    add_launch(run, job, accepted.cluster, script, options, directory, accepted.command)
