"""Room in a cache folder: what lies there, what is on its way, and what has to go.

A folder holds, for each file, ``KEY`` once it is whole, ``KEY.BYTES.TOKEN.part`` while it comes,
and ``KEY.lock``, held by whoever brings it. Parts count with the size that they will have, so
processes that bring files side by side do not overfill the folder. A part whose lock is free was
left by a process that died, and is removed.

What was used longest ago goes first. A file that is open may go: its reader keeps it, unlinked.
"""

import os
import re
import shutil
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ssl_scale.data.file_lock import locked
from ssl_scale.errors import DataError

_ROOM_LOCK = ".room.lock"
# Whatever else lies in the folder is not ours to remove.
_OURS = re.compile(r"(?P<key>[0-9a-f]{32})([.](?P<bytes>[0-9]+)[.][0-9a-f]+[.]part)?")
_POLL_S = 0.1


@dataclass(frozen=True)
class _Content:
    """What lies in a folder.

    Args:
        whole: (time of last use in s, bytes, path), longest unused first.
        coming: bytes that parts will have.
        missing: bytes of these that have not come yet.
    """

    whole: list[tuple[float, int, Path]]
    coming: int
    missing: int


def make_room(folder: Path, key: str, size: int, most: int, spare_s: float = 0) -> Path | None:
    """Make room for a file and begin it; waits while other files on their way take all of it.

    Args:
        folder: of the files.
        key: of the new one; its lock is held.
        size: of the new one in bytes.
        most: bytes that all files may have.
        spare_s: leave alone what was used within so many seconds, and rather give up.

    Returns:
        An empty part for the file; None if that would cost what is to be spared.

    Raises:
        DataError: the file is larger than the cache may be, or the disk is full.
    """
    if size > most:
        raise DataError(
            f"{folder}: the cache must have room for every shard, but may take {most} bytes and a "
            f"shard has {size}; raise data.cache.max_bytes, best to several times as much as all "
            "streams read at once"
        )
    while True:
        with locked(folder / _ROOM_LOCK):
            content = _look(folder, key)
            free = shutil.disk_usage(folder).free - content.missing
            used = content.coming + sum(size for _, size, _ in content.whole)
            lacking = max(used + size - most, size - free)
            spared = time.time() - spare_s if spare_s else float("inf")
            victims = _victims(content, lacking, spared)
            if victims is not None:
                for victim in victims:
                    _remove(victim)
                part = folder / f"{key}.{size}.{uuid.uuid4().hex[:12]}.part"
                part.touch(exist_ok=False)
                return part
        if spare_s:
            return None
        if not content.coming:
            raise DataError(
                f"{folder}: the disk must have room for a shard of {size} bytes, but has {free} "
                "and nothing cached is left to remove; free some of it, or put the cache on "
                "another one (data.cache.folder or SSL_SCALE_CACHE)"
            )
        time.sleep(_POLL_S)


def _victims(content: _Content, lacking: int, spared: float) -> list[Path] | None:
    """What has to go for so many bytes; None if there is not enough that may."""
    found = []
    for used_at, size, path in content.whole:
        if lacking <= 0:
            break
        if used_at >= spared:
            return None
        found.append(path)
        lacking -= size
    return None if lacking > 0 else found


def _look(folder: Path, key: str) -> _Content:
    whole, coming, missing = [], 0, 0
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _OURS.fullmatch(entry.name)
            if match is None:
                continue
            with suppress(FileNotFoundError):  # another process has just finished or removed it
                status = entry.stat()
                if match["bytes"] is None:
                    whole.append((status.st_mtime, status.st_size, Path(entry.path)))
                elif match["key"] == key:
                    os.unlink(entry.path)  # of an attempt that stalled: ours is the next
                elif not _is_left_behind(Path(entry.path), folder / f"{match['key']}.lock"):
                    coming += int(match["bytes"])
                    missing += max(int(match["bytes"]) - status.st_blocks * 512, 0)
    return _Content(sorted(whole), coming, missing)


def _is_left_behind(part: Path, lock: Path) -> bool:
    """Remove a part that nobody brings any more."""
    with locked(lock, wait=False) as is_free:
        if is_free:
            part.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        return is_free


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    lock = path.with_name(path.name + ".lock")
    with locked(lock, wait=False) as is_free:
        if is_free:
            lock.unlink(missing_ok=True)
