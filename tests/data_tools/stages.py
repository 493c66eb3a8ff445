"""Stage functions for the tests of the unit of work; workers import them by name."""

import os
import signal
from pathlib import Path
from typing import Any

from ssl_scale_data_tools.work import PRIVATE, Produced, Stage, Task

from ssl_scale.errors import DataError


def write(payload: Any, folder: Path) -> Produced:
    """One file in place, one beside the marker."""
    (folder / f"{payload}.out").write_text(f"content of {payload}")
    (folder / PRIVATE).mkdir()
    (folder / PRIVATE / f"{payload}.part").write_text("part")
    return Produced({"items": 1}, details={"payload": payload})


def die_once(payload: tuple[str, str], folder: Path) -> Produced:
    """The first attempt is killed with a half-written file."""
    name, memory = payload
    (folder / f"{name}.out").write_text("half")
    seen = Path(memory, name)
    if not seen.exists():
        seen.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"{name}.out").write_text(f"content of {name}")
    return Produced({"items": 1})


def die_if_bad(payload: str, folder: Path) -> Produced:
    """A task called bad kills its worker, always."""
    if payload == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return write(payload, folder)


def never_end(payload: str, folder: Path) -> Produced:
    """A task called bad never ends, and answers no polite signal."""
    if payload == "bad":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        while True:
            signal.pause()
    return write(payload, folder)


def fail_if_bad(payload: str, folder: Path) -> Produced:
    """Tasks whose names begin so fail: bad as the user's fault, broken as ours."""
    (folder / f"{payload}.out").write_text("half")
    if payload.startswith("bad"):
        raise DataError(f"{payload} must be good, but is bad")
    if payload.startswith("broken"):
        raise ZeroDivisionError("ours")
    return Produced({"items": 1})


def hold(payload: tuple[str, str], folder: Path) -> Produced:
    """Say which process this is, and stay."""
    name, memory = payload
    Path(memory, f"{name}.{os.getpid()}").touch()
    while True:
        signal.pause()


def stage_of(function: Any, folder: Path, **options: Any) -> Stage:
    """A stage around one of the functions."""
    return Stage("test", folder, function, options.pop("config", "c"), **options)


def tasks_of(*names: str, memory: Path | None = None, salt: str = "") -> list[Task]:
    """Tasks whose payload is their name, or name and a folder to remember things in."""
    payloads = [name if memory is None else (name, str(memory)) for name in names]
    return [
        Task(name, payload, f"hash of {name}{salt}")
        for name, payload in zip(names, payloads, strict=True)
    ]
