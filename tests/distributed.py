"""Run a test's function on several ranks: gloo on loopback, forked from a warm process.

``run_ranks(function, 2, 3.0)`` calls ``function(3.0)`` in two processes that share a process group
and returns their results in rank order. The function must stand at the top of a module; what it
takes and returns is pickled. A rank that raises ends the others, and its exception is raised here
with the rank and its traceback in a note.
"""

import atexit
import contextlib
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# What most tests' modules import, so that no rank spends its time on it.
PRELOAD = ("torch", "numpy", "pytest", "ssl_scale.objectives.objective", "ssl_scale.nn.trunk")

ENVIRONMENT = {
    "GLOO_SOCKET_IFNAME": "lo",
    "MASTER_ADDR": "127.0.0.1",
    "OMP_NUM_THREADS": "1",
    "DS_ACCELERATOR": "cpu",
}

_servers: dict[tuple[str, ...], "subprocess.Popen[str]"] = {}


class RanksTimedOut(Exception):
    """The ranks did not end in time: most likely they wait for each other."""


def run_ranks(
    function: Callable[..., Any],
    world_size: int,
    *arguments: Any,
    preload: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    limit_s: float = 120,
    group: bool = True,
) -> list[Any]:
    """Call a function on every rank; its results, in rank order.

    Args:
        function: stands at the top of a module.
        world_size: number of ranks.
        arguments: passed to every rank.
        preload: further modules that the ranks find imported, like ``deepspeed``; each set of them
            has a server process of its own, which lives as long as this process.
        environment: further variables of the ranks.
        limit_s: the ranks are ended after this time.
        group: whether the process group exists before the function is called.

    Raises:
        RanksTimedOut: the limit is passed.
    """
    server = _server(preload)
    folder = Path(tempfile.mkdtemp(prefix="ranks-"))
    try:
        settings = {
            "world_size": world_size,
            "environment": {**ENVIRONMENT, **(environment or {})},
            "limit_s": limit_s,
            "group": group,
            "path": sys.path,
        }
        (folder / "settings.pickle").write_bytes(pickle.dumps(settings))
        (folder / "call.pickle").write_bytes(pickle.dumps((function, arguments)))
        answer = _ask(server, str(folder))
        if answer == "-":
            return [
                pickle.loads((folder / f"result-{rank}.pickle").read_bytes())
                for rank in range(world_size)
            ]
        if answer == "time":
            logs = "\n".join(_log(folder, rank) for rank in range(world_size))
            raise RanksTimedOut(f"{world_size} ranks must end in {limit_s} s, but did not\n{logs}")
        raise _failure(folder, int(answer))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _failure(folder: Path, rank: int) -> BaseException:
    result = folder / f"result-{rank}.pickle"
    error, text = pickle.loads(result.read_bytes()) if result.exists() else (None, "")
    if error is None:
        status = (folder / f"status-{rank}").read_text()
        error = RuntimeError(f"rank {rank} must end with status 0, but ended with {status}")
    error.add_note(f"on rank {rank}:\n{text}\n{_log(folder, rank)}")
    return error  # type: ignore[no-any-return]


def _log(folder: Path, rank: int) -> str:
    path = folder / f"rank-{rank}.log"
    text = path.read_text(errors="replace")[-4000:] if path.exists() else ""
    return f"output of rank {rank}:\n{text}"


def _server(preload: tuple[str, ...]) -> "subprocess.Popen[str]":
    server = _servers.get(preload)
    if server is None or server.poll() is not None:
        server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py")), *PRELOAD, *preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ENVIRONMENT},
        )
        _servers[preload] = server
        if _read(server) != "ready":
            raise RuntimeError(f"the server of test ranks must import {preload}, but cannot")
    return server


def _ask(server: "subprocess.Popen[str]", folder: str) -> str:
    assert server.stdin is not None
    server.stdin.write(folder + "\n")
    server.stdin.flush()
    return _read(server)


def _read(server: "subprocess.Popen[str]") -> str:
    assert server.stdout is not None
    return server.stdout.readline().rstrip("\n")


@atexit.register
def _stop_servers() -> None:
    for server in _servers.values():
        # A server without input ends by itself.
        with contextlib.suppress(BrokenPipeError):
            server.communicate()
