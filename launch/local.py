"""Run ssl-scale fit as several processes on this machine.

All of them succeed or all of them end: if one fails, the others are stopped and its error is shown.
Rank 0 writes to the terminal, every rank to RUN_FOLDER/logs/rank-N.log. Ctrl-C and SIGTERM are
passed on, so that the run can save; a second one kills. With --max-restarts a run that fails is
started again from its newest checkpoint. Arguments after RECIPE that are not listed here go to
ssl-scale fit as they are.

Whoever has a launcher of their own needs none of this: ssl-scale fit reads RANK, WORLD_SIZE,
LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them. For restarts on
several hosts torchrun itself needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 (pytorch issue 135712).
"""

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .fit_command import add_fit_options, fit_arguments, run_folder_of, ssl_scale_program
from .gpus import choose_gpus, visible_gpus
from .processes import USER_ERRORS, rank_environment, run_processes
from .restarts import run_with_restarts

PASSES_ON_AFTER = "recipe"
EXAMPLES = """examples:
  ssl-launch local demo
  ssl-launch local --processes 2 vision/simclr --data images=/data/cc12m --set train.steps=1000
  ssl-launch local --gpus 0,2 mine.yaml --run-folder runs/first --max-steps 10
  ssl-launch local --processes 8 --max-restarts 3 mine.yaml
  ssl-launch local --processes 2 demo --dry-run
  torchrun --nproc-per-node 8 --no-python ssl-scale fit mine.yaml
"""


@dataclass(frozen=True)
class Launch:
    """What is to be started.

    Args:
        command: program and arguments of every rank.
        processes: how many ranks.
        run_folder: where the run keeps its files.
        environment: what is set beyond our own environment, without the rank's place.
    """

    command: tuple[str, ...]
    processes: int
    run_folder: Path
    environment: Mapping[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name or file")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="ranks to start; default: one a GPU, or 1"
    )
    parser.add_argument(
        "--gpus",
        metavar="N|A,B,..",
        help="use so many GPUs, or these; 0 runs on the CPU; default: all that are visible",
    )
    add_fit_options(parser)
    parser.add_argument(
        "--max-restarts",
        type=int,
        default=0,
        metavar="N",
        help="start again after a failure; give up after N starts in a row that brought no new "
        "checkpoint; default 0: do not start again",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print environment and command of each rank"
    )


def run(arguments: argparse.Namespace) -> int:
    """Start the run and wait for it; returns the exit code."""
    launch = prepare(arguments, os.environ)
    if arguments.dry_run:
        for rank in range(launch.processes):
            place = rank_environment(rank, launch.processes, "<a free port>")
            settings = {**launch.environment, **place}
            shown = " ".join(f"{key}={shlex.quote(value)}" for key, value in settings.items())
            print(f"{shown} {shlex.join(launch.command)}")
        return 0
    logs = launch.run_folder / "logs"
    is_new = not launch.run_folder.exists()
    environment = {**os.environ, **launch.environment}
    start = partial(
        run_processes, launch.command, launch.processes, logs=logs, environment=environment
    )
    code = run_with_restarts(start, launch.run_folder, arguments.max_restarts)
    if code in USER_ERRORS and is_new:
        _remove_logs(launch, logs)
    return code


def prepare(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Launch:
    """Work out what to start.

    Args:
        arguments: the parsed command line.
        environment: the variables that we run under.
    """
    run_folder = run_folder_of(arguments.recipe, arguments.name, arguments.run_folder)

    gpus = choose_gpus(arguments.gpus, visible_gpus(environment))
    processes = arguments.processes if arguments.processes is not None else max(1, len(gpus))
    if processes < 1:
        raise SslScaleError(f"--processes must be at least 1, but is {processes}")
    if gpus and processes > len(gpus):
        raise SslScaleError(
            f"--processes must be at most {len(gpus)}, the GPUs of this run, but is {processes} "
            "(--gpus 0 runs on the CPU)"
        )
    if arguments.max_restarts < 0:
        raise SslScaleError(f"--max-restarts must be at least 0, but is {arguments.max_restarts}")
    if arguments.max_restarts and "--no-resume" in arguments.others:
        raise SslScaleError(
            "--max-restarts must not be given together with --no-resume, which would make every "
            "restart begin anew; move the run's folder away, or choose another with --run-folder"
        )

    settings: dict[str, str] = {}
    if arguments.gpus is not None:
        settings["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    if "OMP_NUM_THREADS" not in environment:
        cores = len(os.sched_getaffinity(0))
        settings["OMP_NUM_THREADS"] = str(max(1, cores // processes))
    if "GLOO_SOCKET_IFNAME" not in environment:
        settings["GLOO_SOCKET_IFNAME"] = "lo"
    # DeepSpeed compiles operators with ninja, which is found although no one activated the
    # environment that it is installed in.
    tools, path = str(Path(sys.executable).parent), environment.get("PATH", os.defpath)
    if tools not in path.split(os.pathsep):
        settings["PATH"] = os.pathsep.join((tools, path))

    command = [
        ssl_scale_program(),
        *fit_arguments(arguments.recipe, run_folder, arguments.name, arguments.data, arguments.set),
    ]
    if arguments.debug:
        command.append("--debug")
    return Launch((*command, *arguments.others), processes, run_folder, settings)


def _remove_logs(launch: Launch, logs: Path) -> None:
    """A mistyped recipe leaves nothing behind; a run that has begun keeps its logs."""
    if {entry.name for entry in launch.run_folder.iterdir()} != {logs.name}:
        return
    for rank in range(launch.processes):
        (logs / f"rank-{rank}.log").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        logs.rmdir()
        launch.run_folder.rmdir()
