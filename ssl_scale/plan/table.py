"""A plan for people to read."""

import math
from collections.abc import Sequence
from dataclasses import fields

from ssl_scale.plan.memory import RankBytes
from ssl_scale.plan.plan import Plan

_GIB = 2**30


def draw(plan: Plan, hours_limit: float | None = None) -> str:
    """The whole plan.

    Args:
        plan: what is drawn.
        hours_limit: hours on the clock that the run may take.
    """
    machines = plan.machines
    head = (
        f"{plan.recipe} on {machines.nodes} x {machines.gpus} GPUs: {plan.precision}, "
        f"ZeRO-{plan.stage}, {plan.micro_batch:,} samples a micro-batch"
    )
    blocks = [head, _parts(plan), _ranks(plan), _fit(plan), _step(plan), _run(plan, hours_limit)]
    notes = [f"not known: {line}" for line in plan.missing]
    notes += [
        f"{source}: shapes alone did not do ({reason}); counted on samples with values"
        for source, reason in plan.step.tried.items()
    ]
    return "\n\n".join([*filter(None, blocks), *notes]) + "\n"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Aligned: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _parts(plan: Plan) -> str:
    rows = [("parameters", "trained", "fixed")]
    rows += [(part.name, f"{part.trained:,}", f"{part.fixed:,}") for part in plan.parts]
    total = [sum(part.trained for part in plan.parts), sum(part.fixed for part in plan.parts)]
    return columns([*rows, ("total", f"{total[0]:,}", f"{total[1]:,}")])


def _ranks(plan: Plan) -> str:
    stages = list(plan.ranks)
    own = {stage: "*" if stage == plan.stage else "" for stage in stages}
    rows = [("GiB a rank", *(f"{own[stage]}ZeRO-{stage}" for stage in stages))]
    on_device = [each.name for each in fields(RankBytes) if each.name != "host"]
    has_host = any(rank.host for rank in plan.ranks.values())
    names = [*on_device, "total", *(["host"] if has_host else [])]
    rows += [
        (name, *(_gib(getattr(plan.ranks[stage], name)) for stage in stages)) for name in names
    ]
    verdict = ("fits", *("yes" if plan.fits[stage] else "no" for stage in stages))
    return columns([*rows, verdict])


def _fit(plan: Plan) -> str:
    memory = f"{_gib(plan.machines.memory_bytes)} GiB"
    if plan.advice is None:
        return f"fits into GPUs of {memory}"
    return f"does not fit into GPUs of {memory}; {plan.advice}"


def _step(plan: Plan) -> str:
    step, machines = plan.step, plan.machines
    return (
        f"a step: {_tflop(step.flops)} (forward {_tflop(step.forward)}, backward "
        f"{_tflop(step.backward)}), {_duration(plan.step_s)} at {machines.mfu:.0%} of "
        f"{machines.peak_tflops:g} TFLOP/s\n"
        f"a checkpoint: {_gib(plan.checkpoint)} GiB"
    )


def _run(plan: Plan, hours_limit: float | None) -> str:
    run = plan.run
    if run is None:
        return ""
    text = (
        f"the run: {run.steps:,} steps, {run.hours:,.2f} h ({run.hours / 24:,.2f} days), "
        f"{run.gpu_hours:,.1f} GPU-hours, {run.steps * plan.step.flops / 1e18:.4g} EFLOP\n"
        f"kept at the end: {run.checkpoints} checkpoints, "
        f"{_gib(run.checkpoints * plan.checkpoint)} GiB"
    )
    if hours_limit is None:
        return text
    if run.hours <= hours_limit:
        return f"{text}\nends within {hours_limit:g} h"
    needed = math.ceil(run.gpu_hours / hours_limit)
    return f"{text}\ndoes not end within {hours_limit:g} h: that takes {needed:,} GPUs"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / _GIB:,.3f}"


def _tflop(flops: float) -> str:
    return f"{flops / 1e12:,.4g} TFLOP"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:,.3g} s"
