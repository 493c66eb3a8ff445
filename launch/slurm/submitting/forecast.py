"""What ``ssl-scale check`` and ``ssl-scale plan`` say before a job is submitted."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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


def check(program: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Check a recipe, its overrides and its data; returns what was found.

    Args:
        program: ``ssl-scale``.
        arguments: recipe, overrides and bindings, and further options of ``check``.

    Raises:
        RecipeFault: something is wrong with them.
    """
    found: dict[str, Any] = json.loads(_ask(program, "check", [*arguments, "--json"]))
    return found


def roles_of(program: str, recipe: str, overrides: Sequence[str]) -> dict[str, list[str]]:
    """The roles that a recipe names, each with the arguments that name it.

    Args:
        program: ``ssl-scale``.
        recipe: a recipe's name or file.
        overrides: of the recipe.

    Raises:
        RecipeFault: the recipe is wrong.
    """
    words = [recipe, *(f"--set={override}" for override in overrides), "--roles"]
    found: dict[str, list[str]] = json.loads(_ask(program, "show", words))
    return found


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
    size = _size(nodes, gpus, gpu_type)
    return read_plan(json.loads(_ask(program, "plan", [*arguments, *size, "--json"])))


def plan_variants(
    program: str,
    arguments: Sequence[str],
    variants: Path,
    nodes: int,
    gpus: int,
    gpu_type: str | None,
) -> list[Forecast]:
    """Plan each variant of a recipe; see `plan`.

    Args:
        program: ``ssl-scale``.
        arguments: recipe, overrides and bindings.
        variants: a file with the overrides of each.
        nodes: hosts.
        gpus: of each.
        gpu_type: what kind they are; the plan's default if None.
    """
    words = [*arguments, *_size(nodes, gpus, gpu_type), f"--variants={variants}"]
    return [read_plan(each) for each in json.loads(_ask(program, "plan", words))]


def _size(nodes: int, gpus: int, gpu_type: str | None) -> list[str]:
    kind = [] if gpu_type is None else [f"--gpu-type={gpu_type}"]
    return [f"--nodes={nodes}", f"--gpus={gpus}", *kind]


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
        raise RecipeFault(_reason(done.stdout, done.stderr), done.returncode)
    return done.stdout


def _reason(told: str, said: str) -> str:
    try:
        return str(json.loads(told)["error"])
    except (ValueError, KeyError, TypeError):  # it was not asked for JSON, or could not answer
        return (said or told).strip()
