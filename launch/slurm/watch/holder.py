"""Who trains in a run's folder now, as the lease ``RUNNING`` in it tells."""

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..client.owned_process import OwnedProcess

NAME = "RUNNING"
# As many beats a holder elsewhere may miss until those who want the folder count it as dead.
MISSED = 40


@dataclass(frozen=True)
class Holder:
    """The process that holds, or held, a run's folder.

    Args:
        pid: its number.
        host: where it runs.
        job: Slurm's number of its job; empty if it has none.
        is_alive: whether it still runs; of another host's, whether it was heard of lately.
    """

    pid: int
    host: str
    job: str
    is_alive: bool

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def read_holder(run_folder: Path, now: float) -> Holder | None:
    """The holder of a run's folder; None if nobody holds it.

    Args:
        run_folder: of the run.
        now: seconds since 1970.
    """
    path = run_folder / NAME
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        heard_s = now - path.stat().st_mtime
        pid, host, boot = int(content["pid"]), str(content["host"]), str(content["boot"])
        is_ours = host == socket.gethostname() and content["pids"] == os.readlink(
            "/proc/self/ns/pid"
        )
        if is_ours:
            is_alive = OwnedProcess(host, pid, int(content["started"]), boot).is_alive
        else:
            is_alive = heard_s < MISSED * float(content["beat_s"])
        return Holder(pid, host, str(content["job"]).rpartition(":")[2], is_alive)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
