"""Submit a run to a Slurm cluster; stopped, it saves and goes back to the queue by itself.

The recipe is checked and planned first. What a cluster needs (account, modules, a container,
network variables) stands in a profile, --profile FILE; options given here go before it. Arguments
after RECIPE that are not listed here go to sbatch, each as one word: --constraint=a100. Secrets
are never written down: export them in the shell that submits, the job inherits its variables.
"""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .fit_command import add_fit_options, fit_arguments, run_folder_of, ssl_scale_program
from .slurm.forecast import check, plan
from .slurm.no_secrets import refuse_secrets
from .slurm.packages import require_clients
from .slurm.profile import Profile, read_profile
from .slurm.record import read_launches
from .slurm.sbatch import options_of_folder, sbatch
from .slurm.script import Job, harmless, render
from .slurm.timing import seconds_of, stop_before_s

PASSES_ON_AFTER = "recipe"
EXAMPLES = """examples:
  ssl-launch submit vision/mae --nodes 4 --gpus 8 --time 24:00:00 --data images=/data/in1k
  ssl-launch submit mine.yaml --gpus 4 --profile cluster.yaml --name first --dry-run
  ssl-launch submit mine.yaml --gpus 8 --time 2-00 --after 1234 -- --constraint=a100 --exclusive
"""
BACKOFF_S = 30


@dataclass(frozen=True)
class Submission:
    """What is to be submitted.

    Args:
        job: what the script is made of.
        options: of sbatch, beyond those in the script; each one word.
        checked: recipe, overrides and bindings, for ``ssl-scale check``.
    """

    job: Job
    options: tuple[str, ...]
    checked: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name or file")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="hosts; default 1")
    parser.add_argument("--gpus", type=int, default=0, metavar="G", help="of each; default none")
    parser.add_argument(
        "--processes-per-node", type=int, metavar="P", help="ranks of each; default: one a GPU"
    )
    parser.add_argument("--time", metavar="T", help="longest job, such as 24:00:00 or 2-00")
    parser.add_argument("--partition", metavar="P", help="the queue")
    parser.add_argument("--account", metavar="A", help="who pays")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="what this cluster needs")
    add_fit_options(parser)
    parser.add_argument("--after", metavar="JOB", help="start when this job has succeeded")
    parser.add_argument(
        "--stop-before",
        type=int,
        metavar="S",
        help="seconds before the time limit at which the run is told to save and stop; default: "
        "twice what stopping took before, or 120",
    )
    parser.add_argument(
        "--max-restarts",
        type=int,
        default=5,
        metavar="N",
        help="give up after N starts in a row that brought no new checkpoint; default 5",
    )
    parser.add_argument(
        "--force", action="store_true", help="submit even if the plan says that it does not fit"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the script, submit nothing")


def run(arguments: argparse.Namespace) -> int:
    """Check, plan and submit; returns the exit code."""
    submission = prepare(arguments, os.environ)
    script = render(submission.job)
    refuse_secrets([*submission.job.program, script, *submission.options], os.environ)
    forecast(arguments, submission)
    if arguments.dry_run:
        print(script, end="")
        tell(f"would be submitted by: sbatch {shlex.join(submission.options)}")
        return 0
    require_clients()
    number = submit(submission, script)
    folder = shlex.quote(str(submission.job.run_folder))
    tell(f"job {number}; script, record and logs are in {folder}")
    print(number)
    return 0


def prepare(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Submission:
    """Work out what to submit.

    Args:
        arguments: the parsed command line.
        environment: the variables that we run under.
    """
    given = run_folder_of(arguments.recipe, arguments.name, arguments.run_folder)
    run_folder = given.absolute()
    profile = Profile() if arguments.profile is None else read_profile(arguments.profile)
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
    time, before = _times(arguments, profile, run_folder)
    is_inside = profile.container is not None
    program = "ssl-scale" if is_inside else ssl_scale_program()
    job = Job(
        run_folder=run_folder,
        program=(
            program,
            *fit_arguments(
                arguments.recipe, run_folder, arguments.name, arguments.data, arguments.set
            ),
        ),
        nodes=arguments.nodes,
        processes_per_node=processes,
        gpus=arguments.gpus,
        gpu_option=profile.gpu_option,
        time=time,
        stop_before_s=before,
        partition=arguments.partition or profile.partition,
        account=arguments.account or profile.account,
        cpus_per_task=profile.cpus_per_task,
        modules=profile.modules,
        variables={**profile.environment, **profile.network},
        tools=None if is_inside else Path(program).parent,
        container=profile.container,
        max_restarts=arguments.max_restarts,
        backoff_s=BACKOFF_S,
    )
    checked = [f"--data={pair}" for pair in arguments.data]
    checked += [f"--set={override}" for override in arguments.set]
    options = sbatch_options(arguments, run_folder, profile.sbatch)
    return Submission(job, tuple(options), (arguments.recipe, *checked))


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


def sbatch_options(
    arguments: argparse.Namespace, run_folder: Path, of_profile: Sequence[str]
) -> list[str]:
    """Options of sbatch that hold free text: as words they need no quotes, in a script they would.

    Raises:
        SslScaleError: one is no option, so that sbatch would take it for the script.
    """
    options = options_of_folder(run_folder)
    if arguments.after is not None:
        number = harmless("--after", arguments.after)
        if not re.fullmatch(r"\d+(_\d+)?", number):
            raise SslScaleError(f"--after must be a job's number, but is {number!r}")
        options += [f"--dependency=afterok:{number}", "--kill-on-invalid-dep=yes"]
    passed_on = [*of_profile, *(word for word in arguments.others if word != "--")]
    for word in passed_on:
        if not word.startswith("-"):
            raise SslScaleError(
                "arguments for sbatch must be options of one word each, such as "
                f"--constraint=a100, but one is {word!r}"
            )
    return [*options, *passed_on]


def forecast(arguments: argparse.Namespace, submission: Submission) -> None:
    """Check the recipe and tell what the run will need.

    Raises:
        SslScaleError: the recipe is wrong, or does not fit.
    """
    program, job = ssl_scale_program(), submission.job
    profile = Profile() if arguments.profile is None else read_profile(arguments.profile)
    check(program, submission.checked)
    if not job.gpus:
        tell("no plan: the run uses no GPU")
        return
    told = plan(program, submission.checked, job.nodes, job.gpus, profile.gpu_type)
    for line in told.lines:
        tell(line)
    if not (told.fits or arguments.force):
        raise SslScaleError(
            "the run must fit into its GPUs' memory, but does not; change it as advised above, or "
            "--force to submit it all the same"
        )


def submit(submission: Submission, script: str) -> str:
    """Keep the script in the run's folder and submit it; returns the job's number.

    Raises:
        SslScaleError: the folder cannot be written, or sbatch refuses.
    """
    run_folder = submission.job.run_folder
    path = run_folder / "launch" / f"job-{1 + len(read_launches(run_folder)):03d}.sh"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        (run_folder / "logs").mkdir(exist_ok=True)
        path.write_text(script)
    except OSError as error:
        raise SslScaleError(
            f"{run_folder}: must be a folder that can be written, but is not ({error}); mend it, "
            "or choose another with --run-folder"
        ) from error
    try:
        return sbatch(run_folder, path, submission.options, Path.cwd())
    except SslScaleError:
        path.unlink()
        raise


def tell(text: str) -> None:
    """Say something beside the job's number."""
    print(f"ssl-launch: {text}", file=sys.stderr)
