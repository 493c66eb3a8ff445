"""Remote files on this node's disk: brought once for all its processes, bounded, checked.

Whoever needs a file that is not here takes its lock, brings it under another name, checks it and
renames it. The others wait at the lock and then find it. Nothing half-written has the final name,
and a process that dies lets go of its lock, so that the next one brings the file.

All state is in the folder. It may be shared by runs, and removed whenever none is running.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import xxhash

from ssl_scale.data.cache_room import make_room
from ssl_scale.data.file_lock import locked
from ssl_scale.data.remote import RemoteFile, bring, download
from ssl_scale.data.retrying import Patience, persist
from ssl_scale.errors import DataError

VARIABLE = "SSL_SCALE_CACHE"
MAX_BYTES = 100 * 10**9
SHARDS, INDEXES = "remote-shards", "remote-indexes"
# What was used so recently is not removed for something that is only read ahead.
_IN_USE_S = 300.0


def default_folder() -> Path:
    """``SSL_SCALE_CACHE``, or where programs of this user keep such things."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser().absolute() / "ssl_scale"


@dataclass(frozen=True)
class NodeCache:
    """Files of remote data sets on a disk of this node.

    Args:
        folder: where they lie.
        max_bytes: of all shards in it; indexes come on top.
        patience: with the network.
    """

    folder: Path = field(default_factory=default_folder)
    max_bytes: int = MAX_BYTES
    patience: Patience = field(default_factory=Patience)

    def open(self, file: RemoteFile) -> int:
        """A descriptor of a shard, brought here if it is not.

        Raises:
            DataError: it cannot be brought, has changed, or finds no room.
        """
        place = self._place(file)
        if (descriptor := _opened(place, file.bytes)) is not None:
            return descriptor
        with locked(_lock_of(place)):
            if (descriptor := _opened(place, file.bytes)) is not None:
                return descriptor
            return self._bring(file, place, lambda: self._room(file, place))

    def fetch_ahead(self, file: RemoteFile) -> None:
        """Bring a shard that will be needed, unless another process does or room is short.

        Raises:
            DataError: it cannot be brought; whoever needs it will try again.
        """
        place = self._place(file)
        if place.exists():
            return
        with locked(_lock_of(place), wait=False) as is_ours:
            if not is_ours or place.exists():
                return
            part = make_room(place.parent, place.name, file.bytes, self.max_bytes, _IN_USE_S)
            if part is not None:
                once = replace(self, patience=replace(self.patience, attempts=1))
                os.close(once._bring(file, place, lambda: part))

    def fetch_index(self, file: RemoteFile, folder: Path) -> Path:
        """A file of a data set's own, which is kept; brought to a folder if it is not there.

        Raises:
            DataError: as in `open`.
        """
        place = folder / file.name
        try:
            with locked(folder / f".{file.name}.lock"):
                if not place.exists():
                    for left in folder.glob(f".{file.name}.*.part"):
                        left.unlink(missing_ok=True)
                    os.close(self._bring(file, place, lambda: _part_of(place)))
        except OSError as error:
            raise self._unusable(error) from error
        return place

    def keep(self, key: str, name: str, content: bytes) -> Path:
        """Write a small file of a data set's own; gives its folder.

        Raises:
            DataError: it cannot be written.
        """
        folder = self.subfolder(INDEXES, key)
        part = _part_of(folder / name)
        try:
            part.write_bytes(content)
            os.replace(part, folder / name)
        except OSError as error:
            raise self._unusable(error) from error
        return folder

    def read_small(self, folder: str, name: str) -> bytes:
        """A small file as it is now.

        Raises:
            DataError: it cannot be brought.
        """
        content = b""

        def attempt() -> None:
            nonlocal content
            part = _part_of(self.subfolder(INDEXES) / name)
            try:
                bring(folder, name, part, self.patience)
                content = part.read_bytes()
            finally:
                part.unlink(missing_ok=True)

        persist(attempt, f"{folder}/{name}", self.patience)
        return content

    def subfolder(self, *names: str) -> Path:
        """A folder of the cache, made if there is none.

        Raises:
            DataError: it cannot be made.
        """
        path = self.folder.joinpath(*names)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not os.access(path, os.W_OK):
                raise PermissionError(f"{path} is not writable")
        except OSError as error:
            raise self._unusable(error) from error
        return path

    def _unusable(self, error: OSError) -> DataError:
        return DataError(
            f"{self.folder}: the cache of remote data must be a folder to write to, but is not "
            f"({error}); set data.cache.folder or {VARIABLE}"
        )

    def holds(self, file: RemoteFile) -> bool:
        """Whether a shard is here."""
        return self._place(file).exists()

    def _place(self, file: RemoteFile) -> Path:
        # By address too: what one data set brought is never taken for another's.
        name = f"{file.address} {file.bytes} {file.xxh3}"
        return self.subfolder(SHARDS) / xxhash.xxh3_128_hexdigest(name.encode())

    def _room(self, file: RemoteFile, place: Path) -> Path:
        part = make_room(place.parent, place.name, file.bytes, self.max_bytes)
        assert part is not None, "only what is read ahead gives up"
        return part

    def _bring(self, file: RemoteFile, place: Path, begin: Callable[[], Path]) -> int:
        """Bring a file, and give it open: once it has its name, another process may remove it."""
        descriptor = -1

        def attempt() -> None:
            nonlocal descriptor
            part = begin()
            try:
                download(file, part, self.patience)
                _sync(part)
                descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
                os.replace(part, place)
            finally:
                part.unlink(missing_ok=True)

        persist(attempt, file.address, self.patience)
        return descriptor


def touch(descriptor: int) -> None:
    """Note that a file is in use, so that it is not the next to be removed."""
    with suppress(PermissionError):  # of a cache that another user filled
        os.utime(descriptor)


def _lock_of(place: Path) -> Path:
    return place.with_name(place.name + ".lock")


def _part_of(place: Path) -> Path:
    return place.with_name(f".{place.name}.{os.urandom(6).hex()}.part")


def _sync(path: Path) -> None:
    """After a power cut, a name must not lead to zeros."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _opened(place: Path, size: int) -> int | None:
    """A descriptor of a whole file; None if there is none."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if os.fstat(descriptor).st_size == size:
        touch(descriptor)
        return descriptor
    os.close(descriptor)
    place.unlink(missing_ok=True)
    return None
