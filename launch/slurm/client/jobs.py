"""What Slurm knows of jobs: its queue for as long as it remembers them, then its accounting."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ssl_scale.errors import SslScaleError

from .command import ask

# Answered for jobs that are forgotten, alone or all of them; no failure.
_UNKNOWN = "Invalid job id"
_QUEUE = ("JobArrayID", "State", "Reason", "RestartCnt", "NodeList", "StartTime")
_ACCOUNTING = ("JobID", "State", "Reason", "NodeList", "Start")
_NOTHING = ("None", "(null)", "N/A", "Unknown", "None assigned")
_SEPARATOR = "|"
_LIVES = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING")
_COMES_BACK = ("REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESIZING", "STAGE_OUT")


@dataclass(frozen=True)
class JobState:
    """A job as Slurm sees it.

    Args:
        state: such as RUNNING.
        reason: why it waits or has ended; empty if there is none.
        restarts: how often it went back to the queue.
        nodes: where it runs or ran; empty if nowhere.
        start: when it started, or will at the earliest.
    """

    state: str
    reason: str
    restarts: int
    nodes: str
    start: str

    @property
    def is_over(self) -> bool:
        """Whether it has left the queue."""
        return self.state not in (*_LIVES, *_COMES_BACK)


@dataclass(frozen=True)
class Answer:
    """What Slurm says of some jobs.

    Args:
        states: of those that it knows, by number.
        problem: why it could not be asked; empty if it could.
    """

    states: Mapping[str, JobState] = field(default_factory=dict)
    problem: str = ""


def ask_jobs(jobs: Sequence[str], environment: Mapping[str, str] = os.environ) -> Answer:
    """The states of any number of jobs, in one question to the queue and one to the accounting."""
    if not jobs:
        return Answer()
    columns = ",".join(f"{name}:{_SEPARATOR}" for name in _QUEUE)
    words = (
        "--states=all",
        "--array",
        "--noheader",
        f"--jobs={','.join(jobs)}",
        f"--Format={columns}",
    )
    told = ask("squeue", *words, environment=environment)
    states = read_queue(told.stdout)
    if forgotten := [job for job in jobs if job not in states]:
        states |= _ask_accounting(forgotten, environment)
    problem = "" if not told.returncode or _UNKNOWN in told.stderr else told.stderr.strip()
    return Answer(states, problem.splitlines()[-1] if problem else "")


def ask_slurm(job: str, environment: Mapping[str, str] = os.environ) -> JobState | None:
    """A job's state; None where Slurm does not know it, or is not there."""
    return ask_jobs([job], environment).states.get(job)


def states_of(jobs: Sequence[str]) -> Mapping[str, JobState]:
    """The states of those jobs that Slurm knows, where a job must not be taken for forgotten.

    Raises:
        SslScaleError: Slurm could not be asked.
    """
    answer = ask_jobs(jobs)
    if answer.problem:
        raise SslScaleError(
            f"Slurm must tell which jobs are in the queue, but could not be asked: {answer.problem}"
            "; try again where squeue answers"
        )
    return answer.states


def _ask_accounting(jobs: Sequence[str], environment: Mapping[str, str]) -> dict[str, JobState]:
    """The states of jobs that the queue has forgotten; none where accounting is off."""
    words = ("--parsable2", "--noheader", "--allocations", "--duplicates")
    asked = (f"--format={','.join(_ACCOUNTING)}", f"--jobs={','.join(jobs)}")
    return read_accounting(ask("sacct", *words, *asked, environment=environment).stdout)


def read_queue(text: str) -> dict[str, JobState]:
    """What lines of ``squeue`` say, by the job's number."""
    states = {}
    for job, state, reason, restarts, nodes, start in _rows(text, len(_QUEUE)):
        count = int(restarts) if restarts.isdecimal() else 0
        states[job] = JobState(state, reason, count, nodes, start)
    return states


def read_accounting(text: str) -> dict[str, JobState]:
    """What lines of ``sacct`` say, by the job's number.

    A job has a line for each of its starts, the last one comes last. Its reason is why it waited,
    which tells nothing about how it ended.
    """
    states: dict[str, JobState] = {}
    for job, state, reason, nodes, start in _rows(text, len(_ACCOUNTING)):
        word = state.split()[0] if state else ""  # it may read: CANCELLED by 1000
        restarts = states[job].restarts + 1 if job in states else 0
        states[job] = JobState(word, reason if word == "PENDING" else "", restarts, nodes, start)
    return states


def _rows(text: str, columns: int) -> list[list[str]]:
    """The lines that have so many columns, each of them empty where it says that it is."""
    rows = [line.split(_SEPARATOR)[:columns] for line in text.splitlines()]
    return [
        ["" if value in _NOTHING else value for value in row] for row in rows if len(row) == columns
    ]
