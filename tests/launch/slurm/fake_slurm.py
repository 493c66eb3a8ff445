"""Slurm's commands as small programs that say what a test lets them say, and keep their words."""

import shlex
from pathlib import Path

import pytest

COMMANDS = ("sbatch", "srun", "scontrol", "squeue", "scancel", "sacct")


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int | None = None, **says: str
) -> Path:
    """Put the commands on the path.

    Args:
        folder: takes them.
        monkeypatch: undoes it.
        fails_at: which call of sbatch is refused, from 1.
        says: command -> its standard output.

    Returns:
        A file with one line a call: the command and its words, with NUL between them.
    """
    folder.mkdir(exist_ok=True)
    calls, count = folder / "calls", folder / "count"
    for name in COMMANDS:
        lines = ["#!/bin/bash"]
        if name in ("sbatch", "scancel"):
            lines.append(f"printf '%s\\0' {name} \"$@\" >>{shlex.quote(str(calls))}")
            lines.append(f"echo >>{shlex.quote(str(calls))}")
        if name == "sbatch" and fails_at is not None:
            path = shlex.quote(str(count))
            lines.append(f"echo >>{path}")
            lines.append(f"(($(wc -l <{path}) != {fails_at})) || {{ echo no more >&2; exit 1; }}")
        lines.append(f"printf %s {shlex.quote(says.get(name, ''))}")
        path = folder / name
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return calls


def let(folder: Path, name: str, script: str) -> None:
    """Replace one of the commands by other lines of bash; it keeps its words as before."""
    calls = shlex.quote(str(folder / "calls"))
    kept = f"printf '%s\\0' {name} \"$@\" >>{calls}; echo >>{calls}"
    (folder / name).write_text(f"#!/bin/bash\n{kept}\n{script}\n")


def words_of(calls: Path, name: str) -> list[list[str]]:
    """The words of each call of a command."""
    lines = [line.rstrip("\0").split("\0") for line in calls.read_text().splitlines()]
    return [words[1:] for words in lines if words[0] == name]
