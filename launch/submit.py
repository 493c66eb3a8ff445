"""Submit a run, a chain or a sweep to Slurm; stopped, a run saves and comes back by itself.

Recipes are checked and planned first. What a cluster needs (account, modules, a container,
network variables) stands in a profile, --profile FILE; options given here go before it. Arguments
after RECIPE that are not listed here go to sbatch, each as one word: --constraint=a100. Secrets
are never written down: export them in the shell that submits, the job inherits its variables.

Several recipes become a chain: each takes parts of an earlier link's run by `init_from`, where
`previous` means the run of the link before, and an earlier recipe's name that recipe's run. --set
acts on all of them, --data on those that name the role. If one link is wrong, or refused, none is
queued. A sweep is one array of jobs; `ssl-launch results` compares its runs.
"""

import argparse
import os
import shlex
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .fit_command import add_fit_options, run_folder_of
from .slurm.client.living import refuse_living
from .slurm.client.packages import require_clients
from .slurm.client.saying import tell
from .slurm.groups.dependencies import afterok, jobs_meant_by
from .slurm.groups.groups import members
from .slurm.groups.links import chain_of, name_of_chain
from .slurm.groups.sweep import Sweep, read_axis, tasks_of
from .slurm.job.array_script import render_array
from .slurm.job.profile import Profile, read_profile
from .slurm.job.script import render
from .slurm.submitting.chains import prepare_links, submit_links
from .slurm.submitting.kept_scripts import next_script
from .slurm.submitting.no_secrets import refuse_secrets
from .slurm.submitting.submission import Run, forecast, prepare, submit
from .slurm.submitting.sweeps import array_job, array_options, prepare_tasks, submit_tasks

PASSES_ON_AFTER = "recipe"
EXAMPLES = """examples:
  ssl-launch submit vision/mae --nodes 4 --gpus 8 --time 24:00:00 --data images=/data/in1k
  ssl-launch submit mine.yaml --gpus 4 --profile cluster.yaml --name first --dry-run
  ssl-launch submit mine.yaml --gpus 8 --time 2-00 --after 1234 -- --constraint=a100 --exclusive
  ssl-launch submit pretrain.yaml adapt.yaml classify.yaml --name road --gpus 8 --time 24:00:00
  ssl-launch submit mine.yaml --sweep optim.lr=1e-3,3e-3 --sweep train.seed=1,2 --at-once 2 \\
    --gpus 1 --time 4:00:00
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "recipe",
        nargs="+",
        metavar="RECIPE",
        help="a recipe's name or file; several become a chain, each started when the one before "
        "has succeeded",
    )
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="A.B=V,W,...",
        help="a run for each value, in an array of jobs; repeated: for each combination",
    )
    parser.add_argument(
        "--at-once", type=int, metavar="M", help="runs of a sweep that may run at the same time"
    )
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
    parser.add_argument(
        "--after",
        metavar="JOB",
        help="start when this job, or the run, chain or sweep of this folder, has succeeded",
    )
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
        "--exclude-failed",
        action="store_true",
        help="start again without the host whose rank failed first, or that the others waited for",
    )
    parser.add_argument(
        "--force", action="store_true", help="submit even if the plan says that it does not fit"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the script, submit nothing")


def run(arguments: argparse.Namespace) -> int:
    """Check, plan and submit; returns the exit code."""
    if arguments.sweep:
        return run_sweep(arguments)
    if arguments.at_once is not None:
        raise SslScaleError("--at-once is about the runs of a --sweep, but there is none")
    return run_chain(arguments) if len(arguments.recipe) > 1 else run_one(arguments)


def run_one(arguments: argparse.Namespace) -> int:
    """Submit one run."""
    profile = profile_of(arguments)
    submission = prepare(arguments, the_run(arguments), profile)
    waits = waits_of(arguments)
    if members(submission.run.folder):
        raise SslScaleError(
            f"{submission.run.folder}: must be a run's folder, but holds several; choose another "
            "--name"
        )
    script = render(submission.job)
    refuse_secrets([*submission.job.program, script, *submission.options], os.environ)
    forecast(arguments, submission, profile, ())
    if arguments.dry_run:
        print(script, end="")
        tell(f"would be submitted by: sbatch {shlex.join([*submission.options, *waits])}")
        return 0
    require_clients()
    refuse_living([submission.run.folder])
    number = submit(submission, script, waits)
    folder = shlex.quote(str(submission.run.folder))
    tell(f"job {number}; script, record and logs are in {folder}")
    print(number)
    return 0


def run_chain(arguments: argparse.Namespace) -> int:
    """Submit several recipes, each to start when the one before has succeeded."""
    links = chain_of(arguments.recipe)
    folder = folder_of(arguments, name_of_chain(links))
    waits = [] if arguments.after is None else jobs_meant_by(arguments.after)
    links, made = prepare_links(arguments, folder, links, profile_of(arguments))
    if arguments.dry_run:
        for link in links:
            submission, script = made[link.name]
            print(script, end="")
            words = shlex.join([*submission.options, *afterok([f"JOB-OF-{n}" for n in link.after])])
            tell(f"{link.name} would be submitted by: sbatch {words}")
        return 0
    require_clients()
    jobs = submit_links(folder, links, made, waits)
    tell(f"jobs {', '.join(jobs)}, one after another; their runs are in {shlex.quote(str(folder))}")
    print("\n".join(jobs))
    return 0


def run_sweep(arguments: argparse.Namespace) -> int:
    """Submit a run for each combination of values."""
    if len(arguments.recipe) > 1:
        raise SslScaleError(
            f"--sweep takes one recipe, but there are {len(arguments.recipe)}; sweep over each of "
            "them, joined by --after"
        )
    if arguments.at_once is not None and arguments.at_once < 1:
        raise SslScaleError(f"--at-once must be at least 1, but is {arguments.at_once}")
    [recipe] = arguments.recipe
    axes = [read_axis(text) for text in arguments.sweep]
    sweep = Sweep(recipe, tuple(axis.key for axis in axes), tasks_of(axes), arguments.at_once)
    folder = folder_of(arguments, Path(recipe).stem)
    profile, waits = profile_of(arguments), waits_of(arguments)
    made = prepare_tasks(arguments, folder, sweep, profile)
    if arguments.dry_run:
        for submission in made:
            print(render(submission.job), end="")
        scripts = [next_script(submission.run.folder) for submission in made]
        print(render_array(array_job(made), scripts), end="")
        words = shlex.join([*array_options(folder, sweep, range(len(made)), ()), *waits])
        tell(f"would be submitted as one array of {len(made)} tasks by: sbatch {words}")
        return 0
    require_clients()
    number = submit_tasks(arguments, folder, sweep, made, profile, waits)
    where = shlex.quote(str(folder))
    tell(f"job {number}, {len(made)} tasks; compare them: ssl-launch results {where}")
    print(number)
    return 0


def the_run(arguments: argparse.Namespace) -> Run:
    """The run that one recipe makes."""
    [recipe] = arguments.recipe
    folder = folder_of(arguments, Path(recipe).stem)
    return Run(recipe, folder, arguments.name, tuple(arguments.data), tuple(arguments.set))


def folder_of(arguments: argparse.Namespace, default_name: str) -> Path:
    """Where files are kept: an absolute path."""
    name = default_name if arguments.name is None else arguments.name
    return run_folder_of("", name, arguments.run_folder).absolute()


def profile_of(arguments: argparse.Namespace) -> Profile:
    """What the cluster needs."""
    return Profile() if arguments.profile is None else read_profile(arguments.profile)


def waits_of(arguments: argparse.Namespace) -> list[str]:
    """Options of sbatch that say what is waited for."""
    return [] if arguments.after is None else afterok(jobs_meant_by(arguments.after))
