"""The batch script of a sweep: each task of the array is a run of its own, with its own script."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from .script import Job, directives, require_nameable

_BODY = """
job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
# What the task says goes to its run's own log; where that cannot be, to Slurm's file.
exec >>"${run_folders[SLURM_ARRAY_TASK_ID]}/logs/slurm-$job.log" 2>&1
exec bash "${scripts[SLURM_ARRAY_TASK_ID]}" "$job"
"""


def render_array(job: Job, scripts: Sequence[Path]) -> str:
    """The script's text.

    Args:
        job: what is asked of Slurm for each task.
        scripts: of the tasks, in the order of their numbers, each in ``launch/`` of its run.
    """
    folders = [script.parent.parent for script in scripts]
    for folder in folders:
        require_nameable(folder)
    return (
        "\n".join(
            [
                "#!/bin/bash",
                "# Made by ssl-launch submit. Each task of this array is a run of its own, with a",
                "# script of its own.",
                *directives(job),
                "",
                "run_folders=(",
                *(f"    {shlex.quote(str(folder))}" for folder in folders),
                ")",
                "scripts=(",
                *(f"    {shlex.quote(str(script))}" for script in scripts),
                ")",
            ]
        )
        + _BODY
    )
