"""Submit a run again, as it was submitted last; it continues from its newest checkpoint.

Of a chain or a sweep, what is neither done nor in the queue. The recorded scripts and options are
used as they are; to change any, submit the recipe again into the same folder.
"""

import argparse
from pathlib import Path

from .slurm.client.packages import require_clients
from .slurm.groups.links import read_links
from .slurm.groups.sweep import read_sweep
from .slurm.submitting.resuming import resume_links, resume_run, resume_tasks

EXAMPLES = """examples:
  ssl-launch resume runs/first
  ssl-launch resume runs/road                what is left of a chain
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN", help="the folder of a run, a chain or a sweep"
    )


def run(arguments: argparse.Namespace) -> int:
    """Submit again; returns the exit code."""
    require_clients()
    folder: Path = arguments.run_folder.absolute()
    if links := read_links(folder):
        print("\n".join(resume_links(folder, links)))
    elif sweep := read_sweep(folder):
        print(resume_tasks(folder, sweep))
    else:
        print(resume_run(folder))
    return 0
