"""The unit of work: one task makes some files out of one shard's input, and is then done for good.

A stage is a pure function ``(payload, folder) -> Produced``: it writes its files into a folder of
its own. `finish_task` syncs them, renames them into place and then writes one marker: the hashes of
input and settings, the stage's version, counts, files, seconds. A task is done if its marker bears
the hashes it would be given now and its files have the sizes noted there. So a killed stage goes on
where it was, a half-written file is never in place, and changing an option redoes what it must.

Counts come from the markers, never from what an executor returns: schedulers run tasks twice.
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import xxhash

from ssl_scale import __version__
from ssl_scale.errors import DataError

WORK_FOLDER = ".work"
PRIVATE = "private"


@dataclass(frozen=True)
class Produced:
    """What a stage's function reports about the files it wrote.

    Args:
        counts: figures that are summed over tasks.
        errors: rows about what was set aside, each with a reason.
        details: anything else that a later step needs (JSON).
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    errors: Sequence[Mapping[str, Any]] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One unit of work.

    Args:
        name: unique in its stage; names the marker.
        payload: what the stage's function is given; must be picklable.
        input_hash: identifies the input; another hash means the task is not done.
        size: how much work it is, for the progress bar.
    """

    name: str
    payload: Any
    input_hash: str
    size: int = 1


@dataclass(frozen=True)
class Stage:
    """A function over tasks, and the folder it writes.

    Args:
        name: names the folder of its markers.
        folder: where finished files stand.
        function: ``(payload, folder) -> Produced``; importable by name, deterministic, writes
            plain files into the folder given. Those it writes into ``private/`` end up beside the
            markers, for a later step.
        config_hash: identifies the settings.
        version: raised when the function's output changes.
        time_limit_s: longest time for a task; None for no limit.
    """

    name: str
    folder: Path
    function: Callable[[Any, Path], Produced]
    config_hash: str
    version: int = 1
    time_limit_s: float | None = None

    @property
    def markers(self) -> Path:
        """Where the markers of finished tasks stand."""
        return self.folder / WORK_FOLDER / self.name

    @property
    def aside(self) -> Path:
        """Where unfinished files stand; on the same file system as the folder."""
        return self.folder / WORK_FOLDER / "aside"

    def place(self, name: str) -> Path:
        """Where a file of a finished task stands, given its name in the marker."""
        folder, _, last = name.rpartition("/")
        return (self.markers if folder == PRIVATE else self.folder) / last


@dataclass(frozen=True)
class Marker:
    """The record of a finished task."""

    task: str
    input_hash: str
    config_hash: str
    version: int
    code_version: str
    files: Mapping[str, int]
    counts: Mapping[str, int]
    errors: Sequence[Mapping[str, Any]]
    details: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class TaskResult:
    """What an executor says about a task; the marker on disk says what was made.

    Args:
        task: its name.
        outcome: ``failed``: the function raised; ``quarantined``: it killed its worker again and
            again.
        message: one line for the user, if it is not done.
        traceback: for a failure that is not the user's.
    """

    task: str
    outcome: Literal["done", "failed", "quarantined"]
    message: str = ""
    traceback: str = ""


class Executor(Protocol):
    """Runs tasks somewhere: in this process, on this machine, on many.

    `run` yields one result a task in any order and raises nothing for a task that fails. Closing
    the iterator stops what is still running. What runs a task calls `finish_task`, nothing else.
    """

    def run(
        self, stage: Stage, tasks: Sequence[Task], workers: int
    ) -> Generator[TaskResult, None, None]:
        """Run the tasks on so many workers."""
        ...


def hash_of(*values: Any) -> str:
    """A stable hash of JSON values."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogateescape"))


def finish_task(stage: Stage, task: Task) -> Marker:
    """Run one task: files aside, sync, rename, marker."""
    started = time.monotonic()
    aside = stage.aside / f"{task.name}-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        produced = stage.function(task.payload, aside)
        written = sorted(path for path in aside.rglob("*") if path.is_file())
        files = {path.relative_to(aside).as_posix(): path.stat().st_size for path in written}
        stage.markers.mkdir(parents=True, exist_ok=True)
        for name in files:
            sync(aside / name)
        for name in files:
            os.replace(aside / name, stage.place(name))
        # Before the marker says so. Writing the marker syncs the folder of the markers.
        sync(stage.folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    marker = Marker(
        task=task.name,
        input_hash=task.input_hash,
        config_hash=stage.config_hash,
        version=stage.version,
        code_version=__version__,
        files=files,
        counts=dict(produced.counts),
        errors=list(produced.errors),
        details=dict(produced.details),
        seconds=round(time.monotonic() - started, 4),
    )
    write_atomically(stage.markers / f"{task.name}.json", json.dumps(asdict(marker)) + "\n")
    return marker


def read_marker(stage: Stage, name: str) -> Marker | None:
    """The record of a task, if it is there and readable."""
    try:
        return Marker(**json.loads((stage.markers / f"{name}.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def find_done(stage: Stage, task: Task) -> Marker | None:
    """The task's marker, if it is done with the input and settings of now."""
    marker = read_marker(stage, task.name)
    if marker is None or (marker.input_hash, marker.config_hash, marker.version) != (
        task.input_hash,
        stage.config_hash,
        stage.version,
    ):
        return None
    for name, size in marker.files.items():
        try:
            if stage.place(name).stat().st_size != size:
                return None
        except FileNotFoundError:
            return None
    return marker


def run_stage(
    stage: Stage,
    tasks: Sequence[Task],
    executor: Executor,
    workers: int,
    progress: Callable[[Task, Marker], None],
    announce: Callable[[str], None],
    stop_at_first: bool = True,
) -> list[Marker]:
    """Do what is missing of a stage and return all markers, in the order of the tasks.

    Call it inside `work_folder`, which keeps a second run out.

    Args:
        stage: what to do.
        tasks: all tasks of the stage, with distinct names.
        executor: where to do it.
        workers: on how many workers; 0 runs in this process.
        progress: told of each task as it is done.
        announce: told how many tasks were done before.
        stop_at_first: stop at the first task that fails, rather than name all of them at the end.

    Raises:
        DataError: a task failed or was quarantined; those that finished stay done.
    """
    by_name = {task.name: task for task in tasks}
    missing = [task for task in tasks if find_done(stage, task) is None]
    if len(missing) < len(tasks):
        announce(f"{len(tasks) - len(missing)} of {len(tasks)} tasks were done before and are kept")
    for task in missing:
        _discard(stage, task.name)
    bad: list[TaskResult] = []
    with contextlib.closing(executor.run(stage, missing, workers)) as results:
        for result in results:
            if result.outcome == "done":
                marker = _require_marker(stage, by_name[result.task])
                progress(by_name[result.task], marker)
                continue
            bad.append(result)
            if result.outcome == "failed" and stop_at_first:
                break
    if bad:
        raise _as_error(bad)
    return [_require_marker(stage, task) for task in tasks]


def _discard(stage: Stage, name: str) -> None:
    """Remove what a task made from other input: files first, so that no kill can orphan them."""
    marker = read_marker(stage, name)
    for file in marker.files if marker else ():
        stage.place(file).unlink(missing_ok=True)
    (stage.markers / f"{name}.json").unlink(missing_ok=True)


def _require_marker(stage: Stage, task: Task) -> Marker:
    marker = find_done(stage, task)
    if marker is None:
        raise DataError(
            f"{task.name}: must leave its files and a marker in {stage.folder}, but does not; "
            "is something else writing there?"
        )
    return marker


def _as_error(bad: Sequence[TaskResult]) -> Exception:
    first = bad[0]
    more = f" (and {len(bad) - 1} more like it)" if len(bad) > 1 else ""
    if not first.traceback:
        return DataError(f"{first.message}{more}")
    error = RuntimeError(f"{first.task}: {first.message}{more}")
    error.add_note(first.traceback)
    return error


@contextlib.contextmanager
def work_folder(folder: Path) -> Iterator[None]:
    """Make the folder, hold it for one run alone, and clear what a killed run left aside.

    Raises:
        DataError: another run holds it.
    """
    work = folder / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"{folder} must be written by one command at a time, but another is at work there"
            ) from None
        shutil.rmtree(work / "aside", ignore_errors=True)
        yield
        shutil.rmtree(work / "aside", ignore_errors=True)


def sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(aside, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file whole, or not at all."""
    with written_atomically(path) as handle:
        handle.write(text.encode("utf-8"))
