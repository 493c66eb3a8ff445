"""Folders that hold several runs: chains and sweeps."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .links import Link, read_links
from .sweep import Sweep, read_sweep


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


def refuse_other_group(folder: Path, group: Sequence[Link] | Sweep) -> None:
    """Refuse a folder that holds other runs than these.

    Args:
        folder: of the chain or the sweep that is about to be submitted.
        group: its links, or the sweep.

    Raises:
        SslScaleError: another chain or sweep, or a run of its own, has the folder.
    """
    links, sweep = read_links(folder), read_sweep(folder)
    there = _content(sweep if sweep is not None else links)
    if not there:
        if not (folder / "launch.json").exists():
            return
        what = "a run of its own"
    else:
        ours = _content(group)
        if there == ours:
            return
        names = list(there)
        is_alike = names == list(ours)
        what = "runs of these names, but of other recipes or values"
        if not is_alike:
            what = f"other runs ({', '.join(names[:3])}, ...)"
    raise SslScaleError(
        f"{folder}: must be a new folder or that of the same chain or sweep, but holds {what}; "
        "choose another --name"
    )


def _content(group: Sequence[Link] | Sweep) -> dict[str, tuple[str, ...]]:
    """Name of each run -> what it is made of; bindings follow from the recipes."""
    if isinstance(group, Sweep):
        recipe = str(Path(group.recipe))
        return {task.name: (recipe, *task.overrides) for task in group.tasks}
    return {link.name: (str(Path(link.recipe)),) for link in group}
