"""What there is to tell of a run: its job, how far it is, and why it stopped last."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ssl_scale.errors import SslScaleError

from ..client.jobs import Answer, JobState, ask_jobs
from ..client.record import read_launches
from .disk import shortage
from .heartbeats import read_heartbeats, waited_for
from .holder import Holder, read_holder
from .progress import Progress, read_progress
from .starts import Start, read_starts
from .stops import Stop, stop_here, stop_of

# Without a step for so long, and for so many steps, a run is silent.
SILENT_S = 120.0
SILENT_STEPS = 20


@dataclass(frozen=True)
class Story:
    """A run.

    Args:
        folder: of the run.
        job: number of its last job; None if none was submitted.
        state: Slurm's word for the job; where Slurm knows nothing, ours for the run: RUNNING,
            COMPLETED, STOPPED, DIED (its process is gone without a word), WAITING (it has not
            begun) or UNKNOWN (Slurm does not answer).
        slurm: the job as Slurm sees it; None if it does not know it.
        problem: why Slurm could not be asked, or which record is damaged; empty if neither.
        holder: the process that trains, or did when it was heard of last.
        progress: how far the run is.
        restarts: of the job; without a job, of the run.
        is_stopping: whether the ranks were told to save and stop, and have not yet.
        silent_s: how long no step has ended, where that is longer than it should be.
        waits_for: whom the ranks of a silent run wait for; empty if that is not known.
        stop: the last stop; None if there was none.
        shortage: of room for the next checkpoint; empty if there is enough, or none is to come.
    """

    folder: Path
    job: str | None
    state: str
    slurm: JobState | None
    problem: str
    holder: Holder | None
    progress: Progress
    restarts: int
    is_stopping: bool
    silent_s: float | None
    waits_for: str
    stop: Stop | None
    shortage: str = ""

    def as_data(self) -> dict[str, Any]:
        """Plain data, for scripts."""
        slurm = self.slurm
        return {
            "folder": str(self.folder),
            "job": self.job,
            "state": self.state,
            "reason": slurm.reason if slurm else "",
            "nodes": slurm.nodes if slurm else "",
            "problem": self.problem,
            "restarts": self.restarts,
            **asdict(self.progress),
            "left_s": self.progress.left_s,
            "is_stopping": self.is_stopping,
            "silent_s": self.silent_s,
            "waits_for": self.waits_for,
            "last_stop": asdict(self.stop) if self.stop else None,
            "shortage": self.shortage,
        }


def read_stories(folders: Sequence[Path]) -> list[Story]:
    """The stories of runs; Slurm is asked once for all of them."""
    jobs: dict[Path, str | None] = {}
    damaged: dict[Path, str] = {}
    for folder in folders:
        try:
            jobs[folder] = last_job(folder)
        except (SslScaleError, OSError) as error:  # of one run, which must not hide the others
            damaged[folder] = str(error)
    answer = ask_jobs([job for job in jobs.values() if job is not None])
    now = time.time()
    return [
        _without_job(folder, damaged[folder], now)
        if folder in damaged
        else tell(folder, jobs[folder], answer, now)
        for folder in folders
    ]


def _without_job(folder: Path, problem: str, now: float) -> Story:
    """The story of a run whose job is not known, though it may have one."""
    story = tell(folder, None, Answer(), now)
    known = "UNKNOWN" if story.state in ("STOPPED", "WAITING") else story.state
    return replace(story, state=known, problem=problem)


def last_job(folder: Path) -> str | None:
    """The number of a run's last job; None if none was submitted."""
    launches: Sequence[Mapping[str, Any]] = read_launches(folder)
    return str(launches[-1]["job"]) if launches else None


def tell(folder: Path, job: str | None, answer: Answer, now: float) -> Story:
    """The story of a run.

    Args:
        folder: of the run.
        job: number of its last job, if it has one.
        answer: of Slurm.
        now: seconds since 1970.
    """
    progress, holder = read_progress(folder), read_holder(folder, now)
    starts = read_starts(folder)
    slurm = answer.states.get(job) if job is not None else None
    state = _state(job, slurm, answer.problem, holder, progress, bool(starts))
    is_running = state in ("RUNNING", "COMPLETING")
    silent_s, waits_for = _silence(folder, progress, starts, now) if is_running else (None, "")
    is_current = is_running and bool(starts) and _is_now(starts[-1], job, slurm)
    return Story(
        folder=folder,
        job=job,
        state=state,
        slurm=slurm,
        problem=answer.problem if job is not None and slurm is None else "",
        holder=holder,
        progress=progress,
        restarts=_restarts(job, slurm, starts, progress),
        is_stopping=is_current and starts[-1].is_asked_to_stop,
        silent_s=silent_s,
        waits_for=waits_for,
        stop=(
            _last_stop(folder, starts, slurm, is_current)
            if starts or job is not None
            else stop_here(folder, state in ("STOPPED", "DIED"), state == "DIED")
        ),
        shortage="" if progress.is_completed else shortage(folder),
    )


def _state(
    job: str | None,
    slurm: JobState | None,
    problem: str,
    holder: Holder | None,
    progress: Progress,
    has_started: bool,
) -> str:
    if holder is not None and holder.is_alive and not holder.job:
        return "RUNNING"  # of its own accord, whatever became of the job
    if slurm is not None:
        is_done = progress.is_completed and slurm.is_over
        return "COMPLETED" if is_done else slurm.state
    if progress.is_completed:
        return "COMPLETED"
    if holder is not None:
        return "RUNNING" if holder.is_alive else "DIED"
    if job is not None and problem:
        return "UNKNOWN"
    return "STOPPED" if has_started or progress.attempts else "WAITING"


def _restarts(
    job: str | None, slurm: JobState | None, starts: Sequence[Start], progress: Progress
) -> int:
    if slurm is not None:
        return slurm.restarts
    if job is None:
        return max(0, progress.attempts - 1)
    return max((start.restart for start in starts if start.job == job), default=0)


def _is_now(start: Start, job: str | None, slurm: JobState | None) -> bool:
    """Whether a start is the one that runs: a job runs before its script has said so."""
    return start.job == job and (slurm is None or start.restart >= slurm.restarts)


def _silence(
    folder: Path, progress: Progress, starts: Sequence[Start], now: float
) -> tuple[float | None, str]:
    """How long no step has ended, if that is too long, and whom the ranks wait for."""
    began = starts[-1].began_at if starts else 0.0
    beats = read_heartbeats(folder, began)
    known = [beat.stepped for beat in beats]
    if progress.written is not None and progress.written >= began:
        known.append(progress.written)
    if not known:
        return None, ""  # it has not begun to train
    silent_s = now - max(known)
    if silent_s < max(SILENT_S, SILENT_STEPS * (progress.step_s or 0)):
        return None, ""
    return silent_s, waited_for(beats, now)


def _last_stop(
    folder: Path, starts: Sequence[Start], slurm: JobState | None, is_current: bool
) -> Stop | None:
    for number in range(len(starts) - 1, -1, -1):
        is_last = number == len(starts) - 1
        if is_last and is_current:
            continue
        if stop := stop_of(folder, starts[number], slurm if is_last else None):
            return stop
    return None
