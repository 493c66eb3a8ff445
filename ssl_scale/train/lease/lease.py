"""The lease that a run holds: renewed while it lives, given back when it ends.

A holder that seemed dead, and wakes up after another has followed it, finds the other's token in
the file: its run then stops where the ranks agree on stopping, and commits no checkpoint.
"""

import logging
import threading
from contextlib import suppress
from pathlib import Path

from ssl_scale.checkpoint.layout import write_durably
from ssl_scale.errors import SslScaleError
from ssl_scale.train.lease.holder import Holder
from ssl_scale.train.lease.page import Page, read

_log = logging.getLogger(__name__)


class Lease:
    """A lease that was taken; a thread renews it until `release`.

    Args:
        path: its file, as `take` left it.
        holder: this process.

    Attributes:
        failure: why the run must stop, once another holds the folder.
    """

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path = path
        self.holder = holder
        self.failure: SslScaleError | None = None
        self._draft = Page.of(holder, 0).draft(path.parent)
        self._beats = 0
        self._is_failing = False
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, daemon=True, name="lease")
        self._thread.start()

    def check(self) -> None:
        """Look at the file itself, since the last beat may be some seconds old.

        Raises:
            SslScaleError: another holds the folder.
        """
        page = read(self.path)
        if page is not None and page.token != self.holder.token:
            self.failure = _lost(self.path, page)
        if self.failure is not None:
            raise self.failure

    def release(self) -> None:
        """Give the folder back, if it is still ours."""
        self._released.set()
        self._thread.join()
        with suppress(OSError):  # whoever comes next sees that this process is gone
            self._draft.unlink(missing_ok=True)
            page = read(self.path)
            if page is not None and page.token == self.holder.token:
                self.path.unlink()

    def _beat_on(self) -> None:
        while not self._released.wait(self.holder.beat_s):
            try:
                self._beat()
                self._is_failing = False
            except SslScaleError:
                return
            except OSError as error:
                if not self._is_failing:
                    _log.warning("%s can't be renewed: %s; training goes on", self.path, error)
                self._is_failing = True

    def _beat(self) -> None:
        self._beats += 1
        self.check()  # on a full disk this is as far as it comes
        write_durably(self._draft, Page.of(self.holder, self._beats).raw)
        self.check()  # again: to write may take long
        self._draft.replace(self.path)


def _lost(path: Path, page: Page) -> SslScaleError:
    return SslScaleError(
        f"{path}: must name this run until it ends, but names {page}, which took the folder over "
        "when this run gave no sign of life; this one stops and saves nothing more, since only one "
        "run at a time may write there"
    )
