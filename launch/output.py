"""Where a rank's output goes: to a log file each, and rank 0's to the terminal as well.

Rank 0 writes to a pseudo-terminal where we write to a terminal, so that its progress bar is drawn
as usual, and to pipes elsewhere; the launcher copies what arrives. The other ranks write to their
log files themselves, so that nothing of theirs waits for the launcher.
"""

import contextlib
import fcntl
import os
import pty
import struct
import termios
from typing import BinaryIO

CHUNK = 65536
STANDARD_OUTPUT, STANDARD_ERROR = 1, 2


class LineLog:
    """Writes whole lines to a log, without what a progress bar has drawn over.

    Args:
        file: where to write; closed by `close`.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._line = b""

    def write(self, data: bytes) -> None:
        """Take what a process wrote; a line reaches the file when it is complete."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._file.write(_last_drawn(line) + b"\n")
        if lines:
            self._file.flush()
        # A bar that no newline ends must not pile up in memory.
        if len(self._line) > CHUNK:
            self._line = _last_drawn(self._line)[-CHUNK:]

    def close(self) -> None:
        """Write the last, unfinished line and close the file."""
        if self._line:
            self.write(b"\n")
        self._file.close()


def _last_drawn(line: bytes) -> bytes:
    return line.rstrip(b"\r").rpartition(b"\r")[2]


class Copier:
    """Copies one process's output to our own standard streams and to a log.

    Args:
        log: receives both streams, as they come.
    """

    def __init__(self, log: LineLog) -> None:
        self._log = log
        self._targets: dict[int, int] = {}
        self._terminal: int | None = None
        self._pipes: list[int] = []
        self.stdout = self._stream(STANDARD_OUTPUT)
        self.stderr = self._stream(STANDARD_ERROR)

    @property
    def sources(self) -> list[int]:
        """File descriptors to watch; `copy` what is there to read."""
        return list(self._targets)

    def _stream(self, target: int) -> int:
        if os.isatty(target):
            return self._terminal if self._terminal is not None else self._open_terminal(target)
        ours, theirs = os.pipe()
        self._watch(ours, target)
        self._pipes.append(theirs)
        return theirs

    def _open_terminal(self, target: int) -> int:
        ours, theirs = pty.openpty()
        settings = termios.tcgetattr(theirs)
        # The real terminal makes \r\n of \n; here it would happen a second time.
        settings[1] &= ~termios.OPOST
        termios.tcsetattr(theirs, termios.TCSANOW, settings)
        self._watch(ours, target)
        self._terminal = theirs
        self.resize()
        return theirs

    def _watch(self, ours: int, target: int) -> None:
        os.set_blocking(ours, False)
        self._targets[ours] = target

    def resize(self) -> None:
        """Give the pseudo-terminal the size of the terminal."""
        real = next((target for target in self._targets.values() if os.isatty(target)), None)
        if self._terminal is not None and real is not None:
            size = fcntl.ioctl(real, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def started(self) -> None:
        """Close the process's ends of the pipes, once it has its own copies of them."""
        while self._pipes:
            os.close(self._pipes.pop())

    def copy(self, source: int) -> bool | None:
        """Copy one piece of what is there to read; None if nothing is there, False at the end."""
        try:
            data = os.read(source, CHUNK)
        except BlockingIOError:
            return None
        except OSError:  # how a pseudo-terminal says that its other side was closed
            return False
        self._log.write(data)
        # A reader that has gone away, as in `| head`, must not end a run.
        with contextlib.suppress(BrokenPipeError):
            _write_all(self._targets[source], data)
        return bool(data)

    def close(self) -> None:
        """Copy the rest and close everything; a leftover writer is not waited for."""
        self.started()
        for source in self.sources:
            while self.copy(source):
                pass
            os.close(source)
        if self._terminal is not None:
            os.close(self._terminal)
        self._targets.clear()
        self._log.close()


def _write_all(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]
