"""How a run is asked to stop."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ssl_scale.train.module import PretrainingModule

REPEATS_S = 5.0


@contextmanager
def signals_ask_to_stop(module: PretrainingModule) -> Iterator[None]:
    """The first SIGTERM, SIGINT or SIGUSR1 asks to stop after the step; a second one ends at once.

    The handler only sets a flag: to save inside a signal handler deadlocks. A job of Slurm's hears
    one request twice, from Slurm and by way of its script, which counts as one.
    """
    own_process = os.getpid()
    repeats_s = REPEATS_S if "SLURM_JOB_ID" in os.environ else 0.0
    first: list[float] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own_process:  # a forked process inherited the handler
            os._exit(128 + number)
        if first and time.monotonic() - first[0] >= repeats_s:
            os._exit(128 + number)
        first.append(time.monotonic())
        module.progress.stop_requested = True

    before = {
        number: signal.signal(number, ask)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
