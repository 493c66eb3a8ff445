"""Processes of ours that outlive the command that started them, told apart from all others.

A number alone may be another process's by now, so the time of its start is kept with it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 0.05


@dataclass(frozen=True)
class OwnedProcess:
    """A process.

    Args:
        name: what it is to people.
        pid: its number.
        started: when it started, in clock ticks since the boot (``/proc/PID/stat``, field 22).
        boot: the kernel's id of that boot.
    """

    name: str
    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, name: str, pid: int) -> "OwnedProcess | None":
        """The process that has this number now; None if there is none."""
        started = _start_of(pid)
        return None if started is None else cls(name, pid, started, _boot())

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return self.boot == _boot() and self.started == _start_of(self.pid)

    def send(self, number: signal.Signals) -> None:
        """Signal this process and no other, whatever has its number."""
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            try:
                if self.is_alive:  # the descriptor keeps the number from meaning another now
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def end(processes: Sequence[OwnedProcess], grace_s: float) -> list[OwnedProcess]:
    """Ask processes to end, and kill those that have not after `grace_s`; returns who remains."""
    remaining = [process for process in processes if process.is_alive]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in remaining:
            process.send(number)
        deadline = time.monotonic() + grace_s
        while remaining and time.monotonic() < deadline:
            time.sleep(LOOK_S)
            remaining = [process for process in remaining if process.is_alive]
    return remaining


def with_variable(name: str, value: str) -> Iterator[OwnedProcess]:
    """Processes whose environment was started with a variable of this value."""
    wanted = f"{name}={value}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            title = (entry / "comm").read_text().strip()
        except OSError:  # it has ended, or is somebody else's
            continue
        process = OwnedProcess.of(title, int(entry.name)) if wanted in variables else None
        if process is not None:
            yield process


def _start_of(pid: int) -> int | None:
    try:
        # The name, in brackets, may hold blanks and brackets itself.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
