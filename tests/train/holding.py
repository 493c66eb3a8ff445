"""A process of its own that takes a run's folder, and says on standard output how it went.

Its standard input is its owner: an empty line asks whether the folder is still ours, the end of
input makes it give the folder back.
"""

import ctypes
import json
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_scale.errors import SslScaleError
from ssl_scale.train.lease.holder import Holder
from ssl_scale.train.lease.lease import Lease
from ssl_scale.train.lease.taking import take

ROOT = Path(__file__).parents[2]
BEAT_S = 0.05
# The system calls that make hard links.
LINKING = {"x86_64": (86, 265), "aarch64": (37,)}


def main() -> None:
    path, missed, beat_s, may_link, changes = json.loads(sys.argv[1])
    if not may_link:
        forbid_links()
    me = replace(Holder.here(beat_s), **changes)
    try:
        take(Path(path), me, missed, lambda text: print(text, flush=True))
    except SslScaleError as refusal:
        print(f"refused: {refusal}", flush=True)
        return
    print("held", flush=True)
    lease = Lease(Path(path), me)
    for _ in sys.stdin:
        try:
            lease.check()
            print("ours", flush=True)
        except SslScaleError as loss:
            print(f"lost: {loss}", flush=True)
    lease.release()


def forbid_links() -> None:
    """Let the kernel answer this process as a file system without hard links does (seccomp)."""
    numbers = LINKING[platform.machine()]
    jumps = [(0x15, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    allow, refuse = (0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | 1)  # EPERM
    steps = [(0x20, 0, 0, 0), *jumps, allow, refuse]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    header = ctypes.create_string_buffer(
        struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(program))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
    assert libc.prctl(22, 2, header, 0, 0) == 0, os.strerror(ctypes.get_errno())


class Taker:
    """Such a process.

    Args:
        path: of the lease.
        missed: beats that a silent holder must miss.
        beat_s: seconds between its own beats.
        environment: beyond ours.
        prefix: a command that it is started with.
        may_link: whether hard links can be made.
        changes: what it says of itself that differs from what it is, such as another host.
    """

    def __init__(
        self,
        path: Path,
        missed: int = 4,
        beat_s: float = BEAT_S,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        may_link: bool = True,
        **changes: Any,
    ) -> None:
        told = json.dumps([str(path), missed, beat_s, may_link, changes])
        slurmless = {name: value for name, value in os.environ.items() if name[:6] != "SLURM_"}
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.train.holding", told],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**slurmless, "PYTHONPATH": str(ROOT), **(environment or {})},
        )

    def __enter__(self) -> "Taker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def hear(self) -> str:
        """Its next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def end(self) -> list[str]:
        """Everything it says until it holds the folder or is refused."""
        lines = [self.hear()]
        while lines[-1] and lines[-1] != "held" and not lines[-1].startswith("refused"):
            lines.append(self.hear())
        return lines

    def ask(self) -> str:
        """Whether the folder is still its own."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.hear()

    def give_back(self) -> str:
        """Let it release the folder and end; what it warned of."""
        return self.process.communicate(timeout=30)[1]


if __name__ == "__main__":
    main()
