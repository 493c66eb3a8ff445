"""Whether a checkpoint is what was written: all bytes, and every element of every tensor once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ssl_scale.checkpoint import layout
from ssl_scale.checkpoint.reader import Reader
from ssl_scale.errors import CheckpointError


@dataclass(frozen=True)
class Verdict:
    """What looking at a whole checkpoint found.

    Args:
        folder: the checkpoint.
        faults: what is wrong, each with its file; none if it is sound.
        files: how many were read.
        bytes: how many were read.
        tensors: how many it holds.
    """

    folder: Path
    faults: tuple[str, ...]
    files: int = 0
    bytes: int = 0
    tensors: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def verify(folder: Path, told: Callable[[int], None] | None = None) -> Verdict:
    """Compare every byte of a checkpoint with its checksum, and look how the pieces meet.

    Args:
        folder: the checkpoint.
        told: hears, while files are read, of every block how many bytes it has.
    """
    try:
        commit = layout.read_commit(folder)
    except CheckpointError as error:
        return Verdict(folder, (str(error),))
    faults = []
    for name, written in commit["files"].items():
        path = folder / name
        try:
            if layout.checksum(path, told) != written["xxh3"]:
                faults.append(f"{path}: the bytes on disk are not those that were written")
        except OSError as error:
            faults.append(f"{path}: must be read to its end, but cannot ({error})")
    tensors = 0
    if not faults:
        try:
            reader = Reader(folder)
            reader.check_tiles()
            tensors = len(reader.keys)
        except CheckpointError as error:
            faults.append(str(error))
    size = sum(written["bytes"] for written in commit["files"].values())
    return Verdict(folder, tuple(faults), len(commit["files"]), size, tensors)
