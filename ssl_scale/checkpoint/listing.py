"""What checkpoints a folder holds, told from names, sizes and ``COMMIT``: no tensor is read."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssl_scale.checkpoint import layout
from ssl_scale.errors import CheckpointError


@dataclass(frozen=True)
class Listed:
    """One checkpoint.

    Args:
        name: of its folder.
        step: optimizer steps done.
        saved_at: when it was committed, seconds since 1970; of a broken one when it last changed.
        bytes: size of its files.
        processes: how many wrote it; None where it is broken, and so for the rest.
        zero: ZeRO stage that it was written under.
        precision: of training.
        marks: of ``newest``, ``best`` and ``for good`` (`keep_every` keeps it) those that hold.
        fault: why it is no checkpoint, if it is none.
    """

    name: str
    step: int
    saved_at: float
    bytes: int
    processes: int | None = None
    zero: int | None = None
    precision: str | None = None
    marks: tuple[str, ...] = ()
    fault: str | None = None


@dataclass(frozen=True)
class Leftover:
    """What an attempt left that died, or what one is writing just now."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Listing:
    """What a folder holds, newest first."""

    folder: str
    checkpoints: tuple[Listed, ...]
    leftovers: tuple[Leftover, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for other programs."""
        return asdict(self)


def list_checkpoints(checkpoints: Path) -> Listing:
    """Look through a folder of checkpoints."""
    commits: dict[Path, dict[str, Any] | str] = {}
    for folder in layout.candidates(checkpoints):
        try:
            commits[folder] = layout.read_commit(folder)
        except CheckpointError as error:
            commits[folder] = str(error)
    sound = [commit for commit in commits.values() if isinstance(commit, dict)]
    newest = sound[0] if sound else None
    return Listing(
        str(checkpoints),
        tuple(_listed(folder, commit, newest) for folder, commit in commits.items()),
        tuple(Leftover(path.name, size_of(path)) for path in layout.leftovers(checkpoints)),
    )


def best_step(commit: dict[str, Any]) -> int | None:
    """The best step so far, as a checkpoint remembers it."""
    step = (commit["state"].get("best") or {}).get("step")
    return None if step is None else int(step)


def size_of(folder: Path) -> int:
    """Bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _listed(folder: Path, commit: dict[str, Any] | str, newest: dict[str, Any] | None) -> Listed:
    step = layout.step_of(folder)
    assert step is not None, "candidates are named like checkpoints"
    if isinstance(commit, str):
        return Listed(folder.name, step, folder.stat().st_mtime, size_of(folder), fault=commit)
    assert newest is not None, "this one is sound"
    every = newest["state"].get("keep_every") or 0
    marks = {
        "newest": step == newest["step"],
        "best": step == best_step(newest),
        "for good": every > 0 and step % every == 0,
    }
    return Listed(
        folder.name,
        step,
        (folder / layout.COMMIT).stat().st_mtime,
        size_of(folder),
        commit["world_size"],
        commit["state"].get("zero"),
        commit["state"].get("precision"),
        tuple(name for name, holds in marks.items() if holds),
    )
