"""Parts that start from what another run has learned, and a report of what became of it.

Every rank reads the run's pieces tensor by tensor and keeps its own of each, so that under ZeRO-3
none holds more than one whole tensor; who wrote the checkpoint does not matter.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from ssl_scale import dist
from ssl_scale.checkpoint.finding import find_checkpoint
from ssl_scale.checkpoint.reader import Reader
from ssl_scale.checkpoint.weights import Shapes, Weights
from ssl_scale.errors import SslScaleError
from ssl_scale.nn.position import LearnedPosition, resized
from ssl_scale.recipe.warm_start import WarmStart
from ssl_scale.sharding import full_shape, refresh_persistent, write_whole
from ssl_scale.system.initial import Report


def start_parts(system: nn.Module, starts: Sequence[WarmStart]) -> dict[str, Report]:
    """Give parts of a system the values that other runs' checkpoints hold.

    Args:
        system: is written; teachers take over the student's values afterwards.
        starts: what starts from where.

    Returns:
        Part -> what became of it.

    Raises:
        SslScaleError: a run, a checkpoint or a part is not there, or does not fit.
    """
    reports = {}
    for number, plan in enumerate(starts):
        where = f"init_from[{number}]"
        try:
            weights = Weights(Reader(find_checkpoint(Path(plan.run), plan.step)), plan.teacher)
            for part in plan.parts:
                reports[part] = _start(module_at(system, part), part, plan, weights)
        except SslScaleError as error:
            raise SslScaleError(f"{where}: {error}") from error
    return reports


def module_at(system: nn.Module, part: str) -> nn.Module:
    """A part of a system, or something inside of one.

    Raises:
        SslScaleError: it is not there.
    """
    try:
        return system.get_submodule(part)
    except AttributeError:
        outer, _, name = part.rpartition(".")
        around = module_at(system, outer)
        inside = sorted(name for name, _ in around.named_children())
        raise SslScaleError(
            f"parts must be there once the system is built, but {outer} has no {name!r}; it has "
            f"{inside}"
        ) from None


@dataclass
class Found:
    """What is going to be written, and what is not; of grids only the table's sizes differ."""

    values: dict[str, str] = field(default_factory=dict)
    grids: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    reshaped: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)


def _start(module: nn.Module, part: str, plan: WarmStart, weights: Weights) -> Report:
    found = compare(module, part, plan, weights)
    _write(module, found, weights)
    source = plan.rename.get(part, part)
    # Checkpoints hold all buffers, also those that are made anew with their module.
    anew = {name for name, _ in module.named_buffers()} - module.state_dict().keys()
    used = {f"{source}.{name}" for name in (*found.values, *anew)}
    loose = [text.partition(" ")[0] for text in found.misshapen]
    return Report(
        weights.where,
        tuple(found.values),
        (*found.fresh, *loose),
        tuple(sorted(set(weights.below(source)) - used)),
        tuple(found.reshaped),
        weights.reader.commit["step"],
        plan.teacher,
    )


def compare(module: nn.Module, part: str, plan: WarmStart, shapes: Shapes) -> Found:
    """Find what there is for a part; nothing is read or written.

    Raises:
        SslScaleError: something is not there or has another shape, and the plan does not allow it.
    """
    source = plan.rename.get(part, part)
    if not shapes.below(source):
        known = sorted({".".join(name.split(".")[:2]) for name in shapes.names})
        raise SslScaleError(
            f"{shapes.where} must hold {source}, but holds {known}; say under `rename` what the "
            "run calls it"
        )
    found = _look(module, source, shapes)
    if found.fresh and not plan.partial:
        raise SslScaleError(
            f"{shapes.where} must hold all of {part}, but lacks {_some(found.fresh)}; change the "
            "part's arguments, or write `partial: true` to start these afresh"
        )
    if found.misshapen and not plan.partial:
        raise SslScaleError(
            f"{part}: {'; '.join(found.misshapen[:3])} in {shapes.where}; change the part's "
            "arguments, or write `partial: true` to start these afresh"
        )
    return found


def _look(module: nn.Module, source: str, weights: Shapes) -> Found:
    """Compare names and shapes; nothing is read or written."""
    found = Found()
    grids = {
        f"{name}.table".lstrip("."): inner.grid
        for name, inner in module.named_modules()
        if isinstance(inner, LearnedPosition)
    }
    kept = module.state_dict().keys()
    shapes = {name: full_shape(parameter) for name, parameter in module.named_parameters()}
    shapes |= {name: tuple(b.shape) for name, b in module.named_buffers() if name in kept}
    for name, mine in shapes.items():
        full = f"{source}.{name}"
        if full not in weights:
            found.fresh.append(name)
            continue
        theirs = weights.shape(full)
        grid = _grid_of(theirs[0], grids[name]) if name in grids and theirs else None
        if theirs == mine:
            found.values[name] = full
        elif grid is not None and theirs[1:] == mine[1:]:
            found.values[name], found.grids[name] = full, (grid, grids[name])
            found.reshaped.append(f"{name} {list(theirs)} -> {list(mine)}")
        else:
            found.misshapen.append(f"{name} must be {list(mine)}, but is {list(theirs)}")
    return found


def _grid_of(places: int, wanted: tuple[int, ...]) -> tuple[int, ...] | None:
    """The grid that a table of another size was for; None if that, or the way, is not known."""
    if len(wanted) == 1:
        return (places,) if places > wanted[0] else None
    side = math.isqrt(places)
    return (side, side) if len(wanted) == 2 and side * side == places else None


def _write(module: nn.Module, found: Found, weights: Weights) -> None:
    buffers = dict(module.named_buffers())
    parameters = dict(module.named_parameters())
    for name, full in found.values.items():
        value = weights.read(full)
        if name in found.grids:
            value = resized(value, *found.grids[name])
        if name in buffers:
            buffers[name].copy_(value)
        else:
            write_whole(parameters[name], value, dist.rank())
    refresh_persistent(parameters.values())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
