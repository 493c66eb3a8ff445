"""What a checkpoint is on disk, and which folders are one.

``step-000012000/`` holds, for each rank, ``part-00000.safetensors`` and ``part-00000.json`` (what
is in it, its size and checksum), and ``COMMIT``, written last, sealed with its own checksum. It is
made under another name (``step-000012000.tmp-<attempt>-<save>``) and renamed, so a folder without a
valid ``COMMIT`` is never a checkpoint: it is reported and passed over.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xxhash

from ssl_scale.errors import CheckpointError

COMMIT = "COMMIT"
VERSION = 1
_NAME = re.compile(r"step-(\d{9})")


def folder_name(step: int) -> str:
    """Name of the checkpoint taken after `step` optimizer steps."""
    return f"step-{step:09d}"


def part_name(rank: int) -> str:
    """Stem of the files of one rank."""
    return f"part-{rank:05d}"


def checksum(path: Path, told: Callable[[int], None] | None = None) -> str:
    """XXH3-128 of a file's bytes; `told` hears of every block how many bytes it has."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
            if told is not None:
                told(len(block))
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    """Write a small file so that its bytes are on disk when this returns."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def seal(content: dict[str, Any]) -> bytes:
    """The bytes of a ``COMMIT``: its content with the content's checksum."""
    return json.dumps(content | {"xxh3": _digest(content)}).encode()


def _digest(content: dict[str, Any]) -> str:
    return xxhash.xxh3_128(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_commit(folder: Path) -> dict[str, Any]:
    """The checkpoint's ``COMMIT``, after checking that every file it names is there and whole.

    Sizes are compared here; the bytes of other files are verified by whoever reads them.

    Raises:
        CheckpointError: the folder is not a valid checkpoint.
    """
    try:
        commit: dict[str, Any] = json.loads((folder / COMMIT).read_bytes())
        if commit.pop("xxh3") != _digest(commit):
            raise CheckpointError(f"{folder / COMMIT}: must be as it was written, but is not")
        for name, sizes in commit["files"].items():
            if Path(name).name != name:
                raise CheckpointError(
                    f"{folder / COMMIT}: must name files beside it, but names {name!r}"
                )
            size = (folder / name).stat().st_size
            if size != sizes["bytes"]:
                raise CheckpointError(
                    f"{folder / name}: must hold {sizes['bytes']} bytes, but holds {size}"
                )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder}: not a checkpoint ({error})") from error
    if commit["version"] != VERSION:
        raise CheckpointError(f"{folder}: version must be {VERSION}, but is {commit['version']}")
    return commit


def step_of(folder: Path) -> int | None:
    """The step that a folder's name tells; None if it is not named like a checkpoint."""
    match = _NAME.fullmatch(folder.name)
    return int(match[1]) if match else None


def candidates(checkpoints: Path) -> Iterator[Path]:
    """Folders named like checkpoints, newest first."""
    if not checkpoints.is_dir():
        return
    named = [(step, path) for path in checkpoints.iterdir() if (step := step_of(path)) is not None]
    yield from (path for _, path in sorted(named, reverse=True))


def valid(checkpoints: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Checkpoints with their ``COMMIT``, newest first; broken ones are passed over."""
    for folder in candidates(checkpoints):
        try:
            yield folder, read_commit(folder)
        except CheckpointError:
            continue


def broken(checkpoints: Path) -> list[str]:
    """Why each folder that is named like a checkpoint, but is not one, is passed over."""
    reasons = []
    for folder in candidates(checkpoints):
        try:
            read_commit(folder)
        except CheckpointError as error:
            reasons.append(str(error))
    return reasons


def leftovers(checkpoints: Path) -> list[Path]:
    """What attempts left that died while they saved or deleted, or what one is writing just now."""
    found = {
        path
        for pattern in (".trash-*", ".tmp-*", "step-*.tmp-*")
        for path in checkpoints.glob(pattern)
    }
    return sorted(found)


def put_in_trash(folder: Path) -> Path:
    """Take a checkpoint's name away, so that a kill while it is deleted leaves no half of one."""
    trash = folder.with_name(f".trash-{folder.name}-{time.time_ns()}")
    return folder.rename(trash)


def retain(
    checkpoints: Path, keep_last: int, keep_every: int = 0, keep: tuple[int, ...] = ()
) -> None:
    """Delete old checkpoints, and leftovers of attempts that died; the newest always stays.

    A folder is renamed before it is deleted, so a kill leaves trash, never half a checkpoint.

    Args:
        checkpoints: the folder that holds them.
        keep_last: how many of the newest stay.
        keep_every: checkpoints at multiples of this step stay too; 0 means none.
        keep: steps that stay in any case.
    """
    for number, (folder, commit) in enumerate(valid(checkpoints)):
        step = commit["step"]
        periodic = keep_every > 0 and step % keep_every == 0
        if number >= max(keep_last, 1) and not periodic and step not in keep:
            put_in_trash(folder)
    for leftover in checkpoints.glob(".trash-*"):
        shutil.rmtree(leftover, ignore_errors=True)
