"""The command that starts or continues a run, and the folder that the run has."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_scale.errors import SslScaleError


def add_fit_options(parser: argparse.ArgumentParser) -> None:
    """Declare what says which run it is, and of what."""
    parser.add_argument("--name", help="name of the run; default: the recipe's")
    parser.add_argument("--run-folder", type=Path, metavar="F", help="default: runs/NAME")
    parser.add_argument(
        "--data", action="append", default=[], metavar="NAME=PATH", help="bind a data set"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=V", help="override the recipe"
    )


def run_folder_of(recipe: str, name: str | None, run_folder: Path | None) -> Path:
    """Where a run keeps its files: in `run_folder`, else in runs/ under its or its recipe's name.

    Raises:
        SslScaleError: the name cannot be that of a folder.
    """
    own = name if name is not None else Path(recipe).stem
    if own in ("", ".", "..") or "/" in own or "\0" in own:
        raise SslScaleError(f"--name must be the name of one folder, but is {own!r}")
    return run_folder or Path("runs") / own


def fit_arguments(
    recipe: str, run_folder: Path, name: str | None, data: Sequence[str], overrides: Sequence[str]
) -> list[str]:
    """Arguments of ``ssl-scale``, each one word."""
    arguments = ["fit", recipe, f"--run-folder={run_folder}"]
    if name is not None:
        arguments.append(f"--name={name}")
    arguments += [f"--data={binding}" for binding in data]
    return arguments + [f"--set={override}" for override in overrides]


def ssl_scale_program() -> str:
    """The ``ssl-scale`` command of this installation, else the one on the path."""
    beside = Path(sys.executable).with_name("ssl-scale")
    found = str(beside) if beside.exists() else shutil.which("ssl-scale")
    if found is None:
        raise SslScaleError(
            f"the command ssl-scale must be beside {sys.executable} or on the path, but is not: "
            "install the package (pip install -e .)"
        )
    return found
