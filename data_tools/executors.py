"""Where tasks run. `LocalExecutor`: processes of this machine, each on a leash.

Every worker is a pool of one process. So a broken pool names the task that broke it, the other
workers go on, and only that pool is rebuilt; a task that kills its worker again and again is
quarantined instead of ending the stage. `multiprocessing.Pool` would hang for ever on the first
killed worker.

The leash is a pipe that a worker watches: it exits when the far end closes, so no worker outlives
a driver that was killed.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext

from ssl_scale.errors import SslScaleError

from .work import Stage, Task, TaskResult, finish_task


class LocalExecutor:
    """Runs tasks on processes of this machine, or in this process with ``workers=0``.

    Args:
        max_deaths: how often a task may kill its worker before it is quarantined.
    """

    def __init__(self, max_deaths: int = 3) -> None:
        self.max_deaths = max_deaths

    def run(
        self, stage: Stage, tasks: Sequence[Task], workers: int
    ) -> Generator[TaskResult, None, None]:
        """Run the tasks; see `Executor`. In this process the time limit does not hold."""
        if workers == 0:
            for task in tasks:
                yield _attempt(stage, task)
            return
        waiting = deque(tasks)
        deaths: Counter[str] = Counter()
        slots = [_Slot(_context()) for _ in range(min(workers, len(tasks)))]
        busy: dict[Future[TaskResult], _Slot] = {}
        try:
            while waiting or busy:
                for slot in slots:
                    if waiting and slot not in busy.values():
                        busy[slot.start(stage, waiting.popleft())] = slot
                finished, _ = wait(busy, return_when=FIRST_COMPLETED)
                for future in finished:
                    slot = busy.pop(future)
                    error = future.exception()
                    if not isinstance(error, BrokenProcessPool):
                        yield _failed(slot.task, error) if error else future.result()
                        continue
                    slot.stop()
                    deaths[slot.task.name] += 1
                    if deaths[slot.task.name] < self.max_deaths:
                        waiting.appendleft(slot.task)
                    else:
                        yield _quarantined(stage, slot, self.max_deaths)
        finally:
            for slot in slots:
                slot.stop()


class _Slot:
    """One worker process, its leash, and the task it was given last."""

    task: Task
    started: float

    def __init__(self, context: BaseContext) -> None:
        self.context = context
        self.pool: ProcessPoolExecutor | None = None
        self.ends: tuple[Connection, Connection] | None = None

    def start(self, stage: Stage, task: Task) -> Future[TaskResult]:
        """Give a task to the worker; start the worker if there is none."""
        if self.pool is None:
            self.ends = self.context.Pipe(duplex=False)
            self.pool = ProcessPoolExecutor(
                1, mp_context=self.context, initializer=_begin_worker, initargs=(self.ends[0],)
            )
        self.task, self.started = task, time.monotonic()
        return self.pool.submit(_attempt_in_time, stage, task)

    def stop(self) -> None:
        """End the worker at once, whatever it does."""
        if self.pool is not None and self.ends is not None:
            for end in self.ends:
                end.close()
            self.pool.shutdown(wait=True, cancel_futures=True)
        self.pool = self.ends = None


def _context() -> BaseContext:
    # Not fork: the driver has threads, and a fork would copy their locks in mid-flight.
    methods = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")


def _begin_worker(leash: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver, which stops us
    threading.Thread(target=_exit_with, args=(leash,), daemon=True).start()


def _exit_with(leash: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        leash.recv_bytes()
    os._exit(1)


def _attempt_in_time(stage: Stage, task: Task) -> TaskResult:
    if stage.time_limit_s is None:
        return _attempt(stage, task)
    # The default action of the alarm ends the process even inside C code that never returns.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, stage.time_limit_s)
    try:
        return _attempt(stage, task)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _attempt(stage: Stage, task: Task) -> TaskResult:
    try:
        finish_task(stage, task)
    except Exception as error:  # reported with its traceback, and ends this task only
        return _failed(task, error)
    return TaskResult(task.name, "done")


def _failed(task: Task, error: BaseException) -> TaskResult:
    if isinstance(error, SslScaleError):
        return TaskResult(task.name, "failed", str(error))
    if isinstance(error, OSError):
        return TaskResult(task.name, "failed", f"{task.name}: {error}")
    what = f"{type(error).__name__}: {error}"
    return TaskResult(task.name, "failed", what, "".join(traceback.format_exception(error)))


def _quarantined(stage: Stage, slot: _Slot, deaths: int) -> TaskResult:
    limit, name, seconds = stage.time_limit_s, slot.task.name, time.monotonic() - slot.started
    cause = (
        f"ran past the time limit of {limit:g} s"
        if limit is not None and seconds >= limit
        else "killed its worker (out of memory, or a crash in a library)"
    )
    return TaskResult(
        name,
        "quarantined",
        f"{name}: must finish, but {cause} {deaths} times and is set aside; "
        "the other tasks are kept, and the same command tries it again",
    )


def default_workers(num_tasks: int) -> int:
    """As many as this process may use CPUs; none for a single task, which gains nothing."""
    if num_tasks < 2:
        return 0
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cpus, num_tasks)
