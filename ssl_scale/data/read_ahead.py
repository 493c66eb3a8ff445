"""Remote shards brought before they are needed, by two threads of each process.

Which shards come next is known, since the order is a function of the position. What another process
is bringing is left to it, so the processes of a node share the work; what would push out a shard in
use is left alone. Errors are kept quiet: whoever needs the shard meets them and stops the run.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from queue import Full, Queue
from typing import TypeAlias

from ssl_scale.data.node_cache import NodeCache
from ssl_scale.data.remote import RemoteFile
from ssl_scale.errors import DataError

_THREADS = 2
_MOST_WAITING = 256
# A shard is asked for again after so long: it may have been removed meanwhile.
_FORGET_S = 60.0

Errand: TypeAlias = tuple[NodeCache, RemoteFile]


class ReadAhead:
    """Brings shards in the background; threads start at the first errand of each process."""

    def __init__(self) -> None:
        self._process: int | None = None
        self._waiting: Queue[Errand] = Queue(_MOST_WAITING)
        self._asked: OrderedDict[RemoteFile, float] = OrderedDict()

    def want(self, cache: NodeCache, files: Iterable[RemoteFile]) -> None:
        """Note what will be needed; returns at once.

        Args:
            cache: where to.
            files: the most urgent first; what was asked for not long ago is passed over.
        """
        if self._process != os.getpid():
            self._start()
        now = time.monotonic()
        while self._asked and now - next(iter(self._asked.values())) > _FORGET_S:
            self._asked.popitem(last=False)
        for file in files:
            if file in self._asked:
                continue
            try:
                self._waiting.put_nowait((cache, file))
            except Full:
                return  # it will be asked for again
            self._asked[file] = now

    def wait(self) -> None:
        """Return when all that was asked for has been seen to."""
        self._waiting.join()

    def _start(self) -> None:
        """Threads do not survive a fork, and what they held is unknown: so all begins anew."""
        self._process, self._waiting, self._asked = os.getpid(), Queue(_MOST_WAITING), OrderedDict()
        for number in range(_THREADS):
            threading.Thread(
                target=_work, args=(self._waiting,), name=f"read-ahead-{number}", daemon=True
            ).start()


def _work(waiting: "Queue[Errand]") -> None:
    while True:
        cache, file = waiting.get()
        with suppress(DataError, OSError):
            cache.fetch_ahead(file)
        waiting.task_done()


# One for the process, as there is one network.
READ_AHEAD = ReadAhead()
