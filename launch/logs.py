"""Show what the ranks of a run have said: the first error of the rank that failed first on top.

Then come the last lines of the job's script and of every rank, each marked with who said it; with
-f, what they say from now on, as it comes.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .slurm.watch.rank_logs import Follower, first_failure, log_files

EXAMPLES = """examples:
  ssl-launch logs runs/first
  ssl-launch logs runs/first -f
  ssl-launch logs runs/first --lines 200
"""
LOOK_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    parser.add_argument("--lines", type=int, default=10, metavar="N", help="of each; default 10")


def run(arguments: argparse.Namespace) -> int:
    """Show the logs; returns the exit code."""
    folder: Path = arguments.run_folder
    if not log_files(folder):
        raise SslScaleError(f"{folder / 'logs'}: must hold a run's logs, but there are none")
    if failure := first_failure(folder):
        print(f"{failure}\n")
    follower = Follower(folder, max(0, arguments.lines))
    show(follower, lambda: bool(arguments.follow))
    return 0


def show(follower: Follower, goes_on: Callable[[], bool]) -> None:
    """Print what there is, and while `goes_on` what is added."""
    try:
        while True:
            for line in follower.new_lines():
                print(line, flush=True)
            if not goes_on():
                return
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        return
