"""Tell how runs fare: the job, how far it is, what is left to do, and what stopped it last.

The job's state is Slurm's own word: of its queue while that knows the job, then of its accounting
(sacct) where there is one. All else, and everything once Slurm has forgotten the job or where there
is none, comes from the run's own folder. Exits with 0 whatever it tells; with 2 where there is no
such folder.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .slurm.groups.groups import runs_in
from .slurm.watch.story import read_stories
from .slurm.watch.telling import lines_of

EXAMPLES = """examples:
  ssl-launch status runs/first
  ssl-launch status runs/road                every link of a chain, every run of a sweep
  ssl-launch status runs/* --json
  ssl-launch status runs/first --watch       again every 5 seconds, until Ctrl-C
"""
EVERY_S = 5.0
CLEAR = "\033[H\033[2J\033[3J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, chains, sweeps"
    )
    parser.add_argument("--json", action="store_true", help="for scripts: a list, an entry a run")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=EVERY_S,
        metavar="S",
        help="tell it again every S seconds, until Ctrl-C; default 5",
    )


def run(arguments: argparse.Namespace) -> int:
    """Tell how each run fares; returns the exit code."""
    for folder in arguments.runs:
        if not folder.is_dir():
            raise SslScaleError(f"{folder}: must be the folder of a run, but there is none")
    runs = runs_in(arguments.runs)
    if arguments.watch is None:
        print(text_of(runs, arguments.json))
    elif arguments.watch <= 0:
        raise SslScaleError(f"--watch must be above 0 seconds, but is {arguments.watch:g}")
    else:
        watch(lambda: text_of(runs, arguments.json), arguments.watch)
    return 0


def text_of(folders: list[Path], is_data: bool) -> str:
    """What is printed about some runs."""
    stories = read_stories(folders)
    if is_data:
        return json.dumps([story.as_data() for story in stories], indent=1)
    now = time.time()
    return "\n".join(line for story in stories for line in lines_of(story, now))


def watch(tell: Callable[[], str], every_s: float) -> None:
    """Print what is told every so many seconds, in a terminal in the same place, until Ctrl-C."""
    try:
        while True:
            told = tell()
            print(f"{CLEAR}{told}" if sys.stdout.isatty() else told, flush=True)
            time.sleep(every_s)
    except KeyboardInterrupt:
        return
