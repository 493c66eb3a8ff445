"""Bytes out of shards: `pread` at known offsets, files kept open, disk errors told from bad data.

`pread` moves no file position, so descriptors survive a fork and may be shared. A read that fails
is tried again on a freshly opened file, as network file systems sometimes need; what still fails
stops the run. It is never taken for a bad sample: a substitute would hide a failing disk.

A shard at an address is read from the node's cache, which brings it here first.
"""

import os
import time
from collections import OrderedDict

from ssl_scale.data.node_cache import NodeCache, touch
from ssl_scale.data.remote import RemoteFile
from ssl_scale.errors import DataError

_WAITS_S = (0.05, 0.5)
# A shard in use tells the cache so this often.
_TOUCH_S = 30.0


class ShardReader:
    """Reads ranges of files, keeping the latest ones open.

    Args:
        max_open: files kept open at once.

    Attributes:
        bytes_read: in all.
    """

    def __init__(self, max_open: int = 512) -> None:
        self._max_open, self.bytes_read = max_open, 0
        self._open: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._touched: dict[int, float] = {}

    def read(
        self,
        path: str,
        size: int,
        version: str,
        offset: int,
        length: int,
        cache: NodeCache | None = None,
    ) -> bytes:
        """A range of a shard.

        Args:
            path: of the shard, or its address.
            size: what it must be, in bytes.
            version: its contents' hash, so that a shard made anew is opened anew.
            offset: first byte.
            length: number of bytes.
            cache: reads what is at an address; None where it is a path.

        Raises:
            DataError: the shard has another size, or cannot be read or brought here.
        """
        key = path, version
        for attempt in range(len(_WAITS_S) + 1):
            try:
                descriptor = self._open.get(key)
                if descriptor is None:
                    descriptor = self._open_shard(path, size, version, cache)
                else:
                    self._open.move_to_end(key)
                if cache is not None:
                    self._touch(descriptor)
                content = os.pread(descriptor, length, offset)
                break
            except OSError as error:
                self._close(key)
                if attempt == len(_WAITS_S):
                    raise DataError(
                        f"{path}: {length} bytes at {offset} must be readable, but reading failed "
                        f"{attempt + 1} times ({error}); check the disk or the network and start "
                        "again: nothing of the data is skipped"
                    ) from error
                time.sleep(_WAITS_S[attempt])
        if len(content) != length:
            raise DataError(
                f"{path}: must have {length} bytes at {offset}, but ends after {len(content)} of "
                "them: it was cut while it was read; restore it"
            )
        self.bytes_read += length
        return content

    def close(self) -> None:
        """Close all files."""
        for key in list(self._open):
            self._close(key)

    def _open_shard(self, path: str, size: int, version: str, cache: NodeCache | None) -> int:
        if cache is None:
            descriptor = _open_local(path, size)
        else:
            self._close_removed()
            folder, _, name = path.rpartition("/")
            descriptor = cache.open(RemoteFile(folder, name, size, version))
            self._touched[descriptor] = time.monotonic()
        self._open[path, version] = descriptor
        if len(self._open) > self._max_open:
            self._close(next(iter(self._open)))
        return descriptor

    def _touch(self, descriptor: int) -> None:
        now = time.monotonic()
        if now - self._touched[descriptor] > _TOUCH_S:
            self._touched[descriptor] = now
            touch(descriptor)

    def _close_removed(self) -> None:
        """Give back the disk of what the cache has removed: an open file keeps its bytes."""
        for key, descriptor in list(self._open.items()):
            if descriptor in self._touched and os.fstat(descriptor).st_nlink == 0:
                self._close(key)

    def _close(self, key: tuple[str, str]) -> None:
        descriptor = self._open.pop(key, None)
        if descriptor is not None:
            self._touched.pop(descriptor, None)
            os.close(descriptor)


def _open_local(path: str, size: int) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    found = os.fstat(descriptor).st_size
    if found != size:
        os.close(descriptor)
        raise DataError(
            f"{path}: must be {size} bytes as when it was indexed, but is {found}; restore it, "
            f"or run `ssl-data index {os.path.dirname(path)}` if the change was meant"
        )
    return descriptor


# One for the process: sources that share a limit on open files must share the files.
SHARD_READER = ShardReader()
