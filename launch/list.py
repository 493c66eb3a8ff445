"""List all runs below a folder, with job, state, progress and what stopped them last.

The run with the newest activity comes first; runs on this machine are listed like those on Slurm.
Slurm is asked once for all of them. Exits with 0, also where there are none.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .slurm.watch.found import find_runs
from .slurm.watch.story import Story, read_stories
from .slurm.watch.table import table
from .slurm.watch.telling import COLUMNS, FIGURES, row_of

EXAMPLES = """examples:
  ssl-launch list
  ssl-launch list /scratch/me/runs
  ssl-launch list --json | jq '.[] | select(.state == "RUNNING") | .folder'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("runs"), metavar="FOLDER", help="default: runs"
    )
    parser.add_argument("--json", action="store_true", help="for scripts: a list, an entry a run")


def run(arguments: argparse.Namespace) -> int:
    """List the runs; returns the exit code."""
    folder: Path = arguments.folder
    if not folder.is_dir():
        raise SslScaleError(
            f"{folder}: must be a folder with runs, but there is none; name another, as in "
            "ssl-launch list /scratch/me/runs"
        )
    stories = read_stories(find_runs(folder))
    if arguments.json:
        print(json.dumps([story.as_data() for story in stories], indent=1))
        return 0
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines_of(stories, folder, width):
        print(line)
    for problem in sorted({problem_of(story) for story in stories if story.problem}):
        print(f"ssl-launch: {problem}", file=sys.stderr)
    return 0


def problem_of(story: Story) -> str:
    """What could not be found out of a run: of its record, or of Slurm where it has a job."""
    return story.problem if story.job is None else f"Slurm could not be asked: {story.problem}"


def lines_of(stories: Sequence[Story], folder: Path, width: int | None) -> list[str]:
    """The table; a line that says so where there are no runs."""
    if not stories:
        return [f"no runs below {folder}"]
    rows = [row_of(story, name_of(story.folder, folder)) for story in stories]
    return table([COLUMNS, *rows], FIGURES, width)


def name_of(run_folder: Path, folder: Path) -> str:
    """A run's name in the table: its path below the folder that is listed."""
    below = run_folder.relative_to(folder)
    return str(below) if below.parts else run_folder.resolve().name
