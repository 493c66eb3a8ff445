"""Submit a run again, as it was submitted last; it continues from its newest checkpoint.

The recorded script and options are used as they are; to change any, submit the recipe again into
the same folder.
"""

import argparse
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .slurm.jobs import ask_slurm
from .slurm.packages import require_clients
from .slurm.record import read_launches
from .slurm.sbatch import sbatch

EXAMPLES = """examples:
  ssl-launch resume runs/first
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="a run's folder")


def run(arguments: argparse.Namespace) -> int:
    """Submit again; returns the exit code."""
    require_clients()
    folder: Path = arguments.run_folder.absolute()
    launches = read_launches(folder)
    if not launches:
        raise SslScaleError(f"{folder}: must be a run that was submitted, but is none")
    if (folder / "COMPLETED").exists():
        raise SslScaleError(f"{folder}: must be a run that is not done, but it is completed")
    last = launches[-1]
    state = ask_slurm(last["job"])
    if state is not None and not state.is_over:
        raise SslScaleError(
            f"job {last['job']} of {folder} must have ended, but is {state.state}; it comes "
            "back by itself"
        )
    script = folder / "launch" / Path(last["script"]).name
    if not script.is_file():
        raise SslScaleError(f"{script}: must be the run's script, but is gone; submit it again")
    # What the run waited for has happened, and Slurm may have forgotten it.
    waits = ("--dependency=", "--kill-on-invalid-dep=")
    options = [word for word in last["options"] if not word.startswith(waits)]
    directory = Path(last["directory"])
    if not directory.is_dir():
        raise SslScaleError(f"{directory}: must be where the run was submitted, but is gone")
    print(sbatch(folder, script, options, directory))
    return 0
