"""What ``ssl-scale check`` and ``ssl-scale plan`` say before a job is submitted."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssl_scale.errors import SslScaleError


class RecipeFault(SslScaleError):
    """The recipe cannot work.

    Args:
        text: what ``ssl-scale`` said.
        exit_code: its exit code.
    """

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text.removeprefix("error: "))
        self.exit_code = exit_code


@dataclass(frozen=True)
class Forecast:
    """What a run will need.

    Args:
        fits: whether it fits into the GPUs' memory.
        lines: for people.
    """

    fits: bool
    lines: tuple[str, ...]


def check(program: str, arguments: Sequence[str]) -> None:
    """Check a recipe, its overrides and its data.

    Args:
        program: ``ssl-scale``.
        arguments: recipe, overrides and bindings.

    Raises:
        RecipeFault: something is wrong with them.
    """
    _ask(program, "check", arguments)


def plan(
    program: str, arguments: Sequence[str], nodes: int, gpus: int, gpu_type: str | None
) -> Forecast:
    """Plan a run on so many GPUs.

    Args:
        program: ``ssl-scale``.
        arguments: recipe, overrides and bindings.
        nodes: hosts.
        gpus: of each.
        gpu_type: what kind they are; the plan's default if None.
    """
    size = [f"--nodes={nodes}", f"--gpus={gpus}", "--json"]
    kind = [] if gpu_type is None else [f"--gpu-type={gpu_type}"]
    return read_plan(json.loads(_ask(program, "plan", [*arguments, *size, *kind])))


def read_plan(plan: dict[str, Any]) -> Forecast:
    """The forecast that is in a plan's JSON."""
    stage = str(plan["stage"])
    fits = bool(plan["fits"].get(stage, True))
    memory = plan["rank_totals"].get(stage, 0) / 1e9
    room = plan["machines"]["memory_bytes"] / 1e9
    lines = [
        f"memory: {memory:.3g} of {room:.3g} GB a GPU under ZeRO-{stage}: "
        + ("fits" if fits else "does NOT fit")
    ]
    if plan["advice"] is not None:
        lines.append(plan["advice"])
    lines.append(f"a step: {plan['step_s']:.3g} s at {plan['machines']['mfu']:.0%} of the peak")
    if plan["run"] is not None:
        run = plan["run"]
        hours, gpu_hours = f"{run['hours']:.3g} h", f"{run['gpu_hours']:.3g} GPU-hours"
        lines.append(f"the run: {run['steps']:,} steps, {hours}, {gpu_hours}")
    lines += [f"not known: {line}" for line in plan["missing"]]
    return Forecast(fits, tuple(lines))


def _ask(program: str, command: str, arguments: Sequence[str]) -> str:
    done = subprocess.run(
        [program, command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise RecipeFault((done.stderr or done.stdout).strip(), done.returncode)
    return done.stdout
