"""Folders that hold several runs: chains and sweeps."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .links import read_links
from .sweep import read_sweep


def members(folder: Path) -> list[Path]:
    """The folders of a chain's links or a sweep's tasks, in their order; empty for other folders.

    Raises:
        SslScaleError: what the folder says of them is damaged.
    """
    names = [link.name for link in read_links(folder)]
    sweep = read_sweep(folder)
    if sweep is not None:
        names = [task.name for task in sweep.tasks]
    return [folder / name for name in names]


def runs_in(folders: Iterable[Path]) -> list[Path]:
    """The runs' own folders; those of groups stand for all of their members."""
    return [run for folder in folders for run in members(folder) or [folder]]


def refuse_other_group(folder: Path, names: Sequence[str]) -> None:
    """Refuse a folder that holds other runs than these.

    Args:
        folder: of a chain or a sweep that is about to be submitted.
        names: of its members.

    Raises:
        SslScaleError: another chain or sweep, or a run of its own, has the folder.
    """
    there = [path.name for path in members(folder)]
    is_run = not there and (folder / "launch.json").exists()
    if is_run or (there and there != list(names)):
        what = "a run of its own" if is_run else f"other runs ({', '.join(there[:3])}, ...)"
        raise SslScaleError(
            f"{folder}: must be a new folder or that of the same chain or sweep, but holds {what}; "
            "choose another --name"
        )
