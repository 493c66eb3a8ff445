"""Who holds a run's folder: a process, told apart from every other there was or will be."""

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """A process that holds, or wants to hold, a run's folder.

    Args:
        token: random; no two takings of a folder share it.
        host: the machine's name.
        boot: the kernel's id of this boot of the machine.
        pid: the process.
        started: when it started, in clock ticks since the boot (``/proc/PID/stat``, field 22): a
            later process of the same number started at another time.
        pids: the namespace that `pid` is counted in; a container has its own.
        clocks: the namespace that `started` is counted in.
        job: Slurm's cluster and job, of an array also the task; empty where there is no job.
        restarts: how often Slurm has started the job again.
        beat_s: seconds between two signs of life.
    """

    token: str
    host: str
    boot: str
    pid: int
    started: int
    pids: str
    clocks: str
    job: str
    restarts: int
    beat_s: float

    @classmethod
    def here(cls, beat_s: float, environment: Mapping[str, str] = os.environ) -> "Holder":
        """This process.

        Args:
            beat_s: seconds between two signs of life.
            environment: where Slurm says which job this is.
        """
        job, restarts = _slurm_job(environment)
        return cls(
            token=secrets.token_hex(16),
            host=socket.gethostname(),
            boot=_boot(),
            pid=os.getpid(),
            started=_start_of(os.getpid()) or 0,
            pids=_namespace("pid"),
            clocks=_namespace("time"),
            job=job,
            restarts=restarts,
            beat_s=float(beat_s),
        )

    def why_gone(self, other: "Holder") -> str | None:
        """Why another holder has certainly ended; None if that cannot be known from here."""
        if self.job and self.job == other.job and self.restarts > other.restarts:
            return f"Slurm has started the job again ({other.restarts} -> {self.restarts})"
        if (self.host, self.boot, self.pids) != (other.host, other.boot, other.pids):
            return None
        started = _start_of(other.pid)
        if started is None:
            return "the process is gone"
        is_seen = started and other.started and self.clocks == other.clocks
        if is_seen and started != other.started:
            return "the process is gone, another has its number"
        return None

    def __str__(self) -> str:
        job = f", Slurm job {self.job}, restart {self.restarts}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


def _slurm_job(environment: Mapping[str, str]) -> tuple[str, int]:
    job = environment.get("SLURM_JOB_ID", "")
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{environment.get('SLURM_ARRAY_TASK_ID', '')}"
    if cluster := environment.get("SLURM_CLUSTER_NAME"):
        job = job and f"{cluster}:{job}"  # two clusters may share a disk, and count alike
    restarts = environment.get("SLURM_RESTART_COUNT", "")
    return job, int(restarts) if restarts.isdecimal() else 0


def _start_of(pid: int) -> int | None:
    """When a process started; None if it has ended, 0 if it is there but cannot be seen."""
    try:
        os.kill(pid, 0)  # where /proc hides what is others', this does not
    except ProcessLookupError:
        return None
    except OSError:
        pass
    try:
        # The name, in brackets, may hold blanks and brackets itself.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return None if fields[0] in "ZX" else int(fields[19])


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # no Linux: there a process that is gone is all that can be known
        return ""


def _namespace(kind: str) -> str:
    try:
        return os.readlink(f"/proc/self/ns/{kind}")
    except OSError:  # an old kernel has no namespace of clocks
        return ""
