"""``ssl-scale`` asked in this process, where torch is imported already: a start costs seconds."""

import contextlib
import io
from collections.abc import Sequence

import pytest
from ssl_scale_launch.slurm.submitting import forecast

from ssl_scale.cli.main import main


def ask(program: str, command: str, arguments: Sequence[str]) -> str:
    """What the command prints; raises like `forecast._ask`."""
    told, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(said):
        code = main([command, *arguments])
    if code:
        raise forecast.RecipeFault(forecast._reason(told.getvalue(), said.getvalue()), code)
    return told.getvalue()


def ask_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let submissions ask without a new process."""
    monkeypatch.setattr(forecast, "_ask", ask)
