"""Why a run stopped last: what its job's script, Slurm and the rank that failed first have said."""

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from ..client.jobs import JobState
from .rank_logs import TAIL_BYTES, error_of, rank_logs, short_error, starts_in
from .starts import Start
from .tail import tail

STUCK = 70
USER_ERRORS = (2, 3)
_SLURM = re.compile(r"\*\*\* JOB \S+ ON \S+ CANCELLED AT \S+(?: DUE TO ([A-Z ]+))?.* \*\*\*")
_FAILED = re.compile(r"rank (\d+) on (\S+) failed first, with exit code (\d+)")
_WAITED = re.compile(r"it was stuck: the others waited for (rank \d+ on \S+?);")
_GONE = re.compile(r"Slurm hears nothing of (\S+), so")
_NODE = re.compile(r"srun: error: Node failure on (\S+)")
_SAVED = re.compile(r"the ranks have stopped after step (\d+), saved")
_GAVE_UP = re.compile(r"(\d+) starts in a row brought no new checkpoint")
_ASKED = re.compile(r"(USR1|TERM): asking the ranks")
_MEMORY = re.compile(r"[Dd]etected \d+ oom.kill event")
_SAVED_HERE = re.compile(r"stopped after step (\d+), saved")
_EARLIER = re.compile(r"this run starts from (.+), which must be completed")
_EARLY = re.compile(r"the ranks were told to stop before they had begun to train")
_UNFINISHED = re.compile(r"the ranks ended without an error, but the run is not completed")
_VERDICT = re.compile(
    f"{_FAILED.pattern}|{_SAVED.pattern}|{_GAVE_UP.pattern}|{_EARLY.pattern}|{_UNFINISHED.pattern}"
    "|completed$|cancelled,"
)
_STUCK_AT = re.compile(r"\(train\.stuck_after_s\): (.*?)(?:; stacks: |$)")

OF_SLURM = {
    "TIME LIMIT": "the time limit",
    "PREEMPTION": "preempted",
    "NODE FAILURE": "a node failed",
    "JOB REQUEUE": "requeued from outside",
    "": "cancelled",
}
OF_STATE = {
    "TIMEOUT": "the time limit",
    "DEADLINE": "the job's deadline",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "a node failed",
    "BOOT_FAIL": "a node did not boot",
    "OUT_OF_MEMORY": "out of memory",
    "CANCELLED": "cancelled",
}
OF_SIGNAL = {
    "USR1": "told to save by USR1 (its time limit was near, or by hand)",
    "TERM": "told to save by TERM (preempted, or by hand)",
}
_WORDS = (
    (_EARLY, "told to stop before it had begun to train"),
    (_UNFINISHED, "its ranks ended before the run was completed"),
)
UNKNOWN = "not known: it ended without a word"
DIED = "its process was killed, or its machine went down"


@dataclass(frozen=True)
class Stop:
    """A stop of a run.

    Args:
        reason: in a few words.
        error: what the rank that failed first said of it; empty if nothing.
        when: when it was noticed, as the script's host tells the time; empty if that is not known.
    """

    reason: str
    error: str
    when: str


def stop_of(run_folder: Path, start: Start, state: JobState | None) -> Stop | None:
    """Why a start ended; None if it came to its end.

    Args:
        run_folder: of the run.
        start: whose end it is.
        state: how its job ended, if Slurm knows that.
    """
    lines = start.lines
    if "completed" in lines:
        return None
    cause, error = _of_slurm(lines), ""
    if any(line.startswith("cancelled, ") for line in lines):
        cause = "cancelled"
    elif not cause and (failed := _first(_FAILED, lines)):
        cause, error = _of_failure(run_folder, start, failed)
    cause = cause or next((words for pattern, words in _WORDS if _first(pattern, lines)), "")
    if not cause and (earlier := _first(_EARLIER, lines)):
        cause = f"{earlier[1]}, which it starts from, is not completed"
    saved = _first(_SAVED, lines)
    if not cause and saved:
        asked = _first(_ASKED, lines)
        cause = OF_SIGNAL[asked[1]] if asked else "told to save and stop"
    if not cause and state is not None:
        cause = OF_STATE.get(state.state, "")
    if gave_up := _first(_GAVE_UP, lines):
        given = f"given up after {gave_up[1]} starts without a new checkpoint"
        cause = f"{given}; {cause}" if cause else given
    if saved:
        cause = f"{cause}; saved after step {int(saved[1]):,}"
    return Stop(cause or UNKNOWN, error, start.last)


def stop_here(run_folder: Path, is_last: bool, has_died: bool) -> Stop | None:
    """Why a run stopped that no job was submitted for, from what its ranks said.

    Args:
        run_folder: of the run.
        is_last: whether its last start has stopped; else the one before is looked at.
        has_died: whether the run ended without giving its folder back.
    """
    if is_last and has_died:
        return Stop(DIED, "", "")
    for log in rank_logs(run_folder):
        blocks = [block for _, block in starts_in(tail(log, TAIL_BYTES))]
        block = blocks[-1] if is_last and blocks else blocks[-2] if len(blocks) > 1 else []
        if saved := next((found for line in block if (found := _SAVED_HERE.match(line))), None):
            return Stop(f"told to save and stop; saved after step {int(saved[1]):,}", "", "")
        if error := short_error(block):
            return Stop(f"{log.stem.replace('-', ' ')} failed", error, "")
    return Stop(UNKNOWN, "", "") if is_last else None


def _first(pattern: re.Pattern[str], lines: tuple[str, ...]) -> re.Match[str] | None:
    return next((found for line in lines if (found := pattern.match(line))), None)


def _of_slurm(lines: tuple[str, ...]) -> str:
    """Why Slurm ended the job; empty if it did not, or as the script asked it to."""
    is_judged = False
    node = next((found[1] for line in lines if (found := _NODE.search(line))), None)
    for line in lines:
        is_judged = is_judged or _VERDICT.match(line) is not None
        if found := _SLURM.search(line):
            due = (found[1] or "").strip()
            if due in ("", "JOB REQUEUE") and is_judged:
                continue
            if due == "NODE FAILURE" and node:
                return f"node {node} failed"
            return OF_SLURM.get(due, due.lower())
        if gone := _GONE.match(line):
            return f"node {gone[1]} is gone"
    return f"node {node} failed" if node else ""


def _of_failure(run_folder: Path, start: Start, failed: re.Match[str]) -> tuple[str, str]:
    """The reason of a rank's failure, and what it said of it."""
    rank, host, code = int(failed[1]), failed[2], int(failed[3])
    who = f"rank {rank} on {host}"
    error = error_of(run_folder, rank, f"job {start.job}, restart {start.restart}")
    if code == STUCK:
        waited = _first(_WAITED, start.lines)
        place = _STUCK_AT.search(error)
        what = f"the others waited for {waited[1]}" if waited else place[1] if place else who
        return f"stuck: {what}", error
    if code in USER_ERRORS:
        return f"{who} failed with exit code {code}; to start again would not help", error
    if code > 128:
        memory = any(_MEMORY.search(line) for line in start.lines)
        return f"{who} was killed by {_signal(code)}{' (out of memory)' if memory else ''}", error
    return f"{who} failed with exit code {code}", error


def _signal(code: int) -> str:
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return f"exit code {code}"
