"""Who may end a loader's worker: its parent, and nobody who means the whole run."""

import multiprocessing
import os
import signal
import subprocess
import time
from multiprocessing.synchronize import Event

import pytest

from ssl_scale.data.workers import leave_stopping_to_parent

FORK = multiprocessing.get_context("fork")


def work(is_ready: Event) -> None:
    leave_stopping_to_parent(0)
    is_ready.set()
    time.sleep(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_worker_outlives_the_signals_of_others_and_obeys_its_parent(
    number: signal.Signals,
) -> None:
    is_ready = FORK.Event()
    worker = FORK.Process(target=work, args=(is_ready,), daemon=True)
    worker.start()
    assert worker.pid is not None
    assert is_ready.wait(20)
    subprocess.run(["kill", f"-{number.name.removeprefix('SIG')}", str(worker.pid)], check=True)
    worker.join(0.3)
    assert worker.is_alive()
    os.kill(worker.pid, number)
    worker.join(20)
    assert worker.exitcode == 128 + number
