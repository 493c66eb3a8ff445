"""Ways to strike a running job, by nothing but what its owner may do on any cluster."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from ssl_scale.errors import SslScaleError

from ..client.command import run_slurm, slurm_environment
from ..client.jobs import ask_slurm

KINDS = {
    "kill": "one rank is killed",
    "kill-all": "all ranks are killed",
    "terminate": "all ranks are told to end (SIGTERM), as by a preemption",
    "requeue": "Slurm ends the job and puts it back into the queue",
    "suspend": "all ranks are stopped (SIGSTOP), and go on some seconds later",
}
_STRIKE_RANK = (Path(__file__).parent / "strike_rank.sh").read_text()
# Goes on trying: ranks that stay stopped would hold their nodes for nothing.
_RESUME = 'sleep "$1"; for try in {1..99}; do "${@:2}" && break; sleep 5; done'


class Refused(SslScaleError):
    """Slurm does not let this user do this here."""


@dataclass(frozen=True)
class Target:
    """A job whose ranks run.

    Args:
        job: Slurm's number.
        step: Slurm's number of the ranks within the job.
        nodes: hosts.
    """

    job: str
    step: str
    nodes: int

    @classmethod
    def find(cls, job: str) -> "Target | None":
        """The ranks of a job; None if none run."""
        state = ask_slurm(job)
        listed = run_slurm("squeue", "--steps", f"--jobs={job}", "--noheader", "--format=%i")
        if state is None or state.state != "RUNNING" or listed is None:
            return None
        steps = [name.partition(".")[2] for name in listed.split()]
        numbers = sorted(int(step) for step in steps if step.isdecimal())
        hosts = run_slurm("scontrol", "show", "hostnames", state.nodes)
        if not numbers or hosts is None:
            return None
        return cls(job, str(numbers[0]), len(hosts.split()))

    def strike(self, kind: str, rank: int, pause_s: float) -> str:
        """Strike; returns who was hit, in words, empty if nobody was there any more.

        Args:
            kind: one of `KINDS`.
            rank: the victim, where there is one.
            pause_s: until stopped ranks go on; that long this takes.

        Raises:
            Refused: Slurm does not let us.
        """
        step = f"{self.job}.{self.step}"
        match kind:
            case "kill":
                return self._kill(rank)
            case "kill-all":
                return self._order("all ranks", "scancel", "--signal=KILL", step)
            case "terminate":
                return self._order("all ranks", "scancel", "--signal=TERM", self.job)
            case "requeue":
                return self._order("the job", "scontrol", "requeue", self.job)
            case _:
                return self._suspend(step, pause_s)

    def _kill(self, rank: int) -> str:
        told = self._order(
            "", "srun", f"--jobid={self.job}", "--overlap", f"--nodes={self.nodes}",
            f"--ntasks={self.nodes}", "--ntasks-per-node=1", "--cpus-per-task=1", "--gres=none",
            "--mpi=none", "--input=none", "--immediate=30",
            "bash", "-c", _STRIKE_RANK, "strike", self.job, self.step, str(rank), "KILL",
        )  # fmt: skip
        return f"rank {rank} on {told.strip()}" if told.strip() else ""

    def _suspend(self, step: str, pause_s: float) -> str:
        # A process of its own, so that the ranks go on whatever becomes of us.
        with subprocess.Popen(
            ["bash", "-c", _RESUME, "resume", str(pause_s), "scancel", "--signal=CONT", step],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=slurm_environment(),
            start_new_session=True,
        ):
            return self._order(f"all ranks, {pause_s:.1f} s", "scancel", "--signal=STOP", step)

    def _order(self, who: str, *words: str) -> str:
        """Run a command of Slurm's; returns `who`, or where that is empty what it printed."""
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                timeout=120, env=slurm_environment(),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return ""
        if done.returncode == 0:
            return who or done.stdout
        # What failed because the ranks have just ended was not refused.
        if Target.find(self.job) == self:
            raise Refused(f"{' '.join(words[:2])}: {done.stderr.strip()}")
        return ""
