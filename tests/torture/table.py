"""The table that `make torture` leaves: one row a test, rewritten when the test runs again."""

import subprocess
from pathlib import Path

_ROOT = Path(__file__).parents[2]
PATH = _ROOT / "docs" / "torture.md"
_WRITTEN = (":!docs", ":!recipes/results")
_HEAD = """\
# Torture

What `make torture` did last, on a quiet machine: each row is written by its test when it passes.

| test | seed | counts | commit |
|---|---|---|---|
"""


def record(test: str, seed: int, **counts: int | float) -> None:
    """Write or replace a test's row."""
    rows = {}
    if PATH.exists():
        lines = PATH.read_text().splitlines()
        rows = {line.split(" | ")[0]: line for line in lines if line.startswith("| `")}
    told = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in counts.items())
    key = f"| `{test}`"
    rows[key] = f"{key} | {seed} | {told} | {commit()} |"
    PATH.write_text(_HEAD + "".join(f"{rows[name]}\n" for name in sorted(rows)))


def commit() -> str:
    """What the figures were taken with; the tables that tests write are no change."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *_WRITTEN)
    return _git("rev-parse", "--short=10", "HEAD") + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
