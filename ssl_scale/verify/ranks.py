"""Small jobs in several processes that share a process group: gloo on loopback, forked warm.

The processes come from a server that has imported torch and has neither threads nor groups, so
they start in a fraction of a second and in a sound state.
"""

import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from ssl_scale import dist
from ssl_scale.errors import SslScaleError

POLL_S = 0.005


class RankFailure(SslScaleError):
    """A rank raised or died."""


class RanksHang(RankFailure):
    """Ranks waited for each other in vain."""


def run_ranks(
    function: Callable[..., Any], world_size: int, *arguments: Any, limit_s: float = 120
) -> list[Any]:
    """Call a function on every rank; its results, in rank order.

    Args:
        function: stands at the top of a module.
        world_size: number of processes.
        arguments: passed to every rank; pickled.
        limit_s: the ranks are ended after this time.

    Raises:
        RankFailure: what the first rank that failed met.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["ssl_scale.verify.loading"])
    with tempfile.TemporaryDirectory(prefix="ssl_scale_verify_") as name:
        folder = Path(name)
        call = (function, arguments, world_size, limit_s, sys.path, folder)
        ranks = [
            server.Process(target=_be_rank, args=(*call, rank), daemon=True)
            for rank in range(world_size)
        ]
        for process in ranks:
            process.start()
        try:
            _wait(ranks, folder, limit_s)
        finally:
            for process in ranks:
                process.kill()
                process.join()
        return [pickle.loads(_result(folder, rank).read_bytes()) for rank in range(world_size)]


def _wait(ranks: Sequence[BaseProcess], folder: Path, limit_s: float) -> None:
    ends = time.monotonic() + limit_s
    running = dict(enumerate(ranks))
    while running:
        for rank, process in list(running.items()):
            if process.exitcode is None:
                continue
            del running[rank]
            if process.exitcode:
                raise RankFailure(_told(folder, rank, process.exitcode))
        if time.monotonic() > ends:
            raise RanksHang(
                f"rank {min(running)} of {len(ranks)} did not end in {limit_s:g} s: every rank "
                "must call the same collectives, whatever it holds"
            )
        time.sleep(POLL_S)


def _told(folder: Path, rank: int, code: int) -> str:
    told = folder / f"error-{rank}"
    return told.read_text() if told.exists() else f"rank {rank} ended with status {code}"


def _result(folder: Path, rank: int) -> Path:
    return folder / f"result-{rank}.pickle"


def _be_rank(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    world_size: int,
    limit_s: float,
    path: list[str],
    folder: Path,
    rank: int,
) -> None:
    """Run the function as one rank; leave its result, or what it raised, in the folder."""
    sys.path[:] = path
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    os.environ["SSL_SCALE_RENDEZVOUS"] = f"file://{folder}/store"
    torch.set_num_threads(1)
    try:
        if world_size > 1:
            dist.start("gloo", rank, world_size, limit_s)
        value = function(*arguments)
        _result(folder, rank).write_bytes(pickle.dumps(value))
        dist.stop()
    except Exception as error:
        (folder / f"error-{rank}").write_text(summary(error))
        # Not through the interpreter's end: it would wait for the group's other ranks.
        os._exit(1)


def summary(error: Exception) -> str:
    """What was raised and where, in one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({last.filename}:{last.lineno})"
