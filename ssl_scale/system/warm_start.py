"""Parts that start from what another run has learned, and a report of what became of it.

Every rank reads the run's pieces tensor by tensor and keeps its own of each, so that under ZeRO-3
none holds more than one whole tensor; who wrote the checkpoint does not matter.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from ssl_scale import dist
from ssl_scale.checkpoint.finding import find_checkpoint
from ssl_scale.checkpoint.reader import Reader
from ssl_scale.checkpoint.weights import Weights
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
                reports[part] = _start(_module(system, part), part, plan, weights)
        except SslScaleError as error:
            raise SslScaleError(f"{where}: {error}") from error
    return reports


def _module(system: nn.Module, part: str) -> nn.Module:
    try:
        return system.get_submodule(part)
    except AttributeError:
        outer, _, name = part.rpartition(".")
        around = _module(system, outer)
        inside = sorted(name for name, _ in around.named_children())
        raise SslScaleError(
            f"parts must be there once the system is built, but {outer} has no {name!r}; it has "
            f"{inside}"
        ) from None


@dataclass
class _Found:
    """What is going to be written, and what is not."""

    values: dict[str, Callable[[], Tensor]] = field(default_factory=dict)
    reshaped: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)


def _start(module: nn.Module, part: str, plan: WarmStart, weights: Weights) -> Report:
    source = plan.rename.get(part, part)
    folder = weights.reader.folder
    available = set(weights.below(source))
    if not available:
        known = sorted({".".join(name.split(".")[:2]) for name in weights.names})
        raise SslScaleError(
            f"{folder} must hold {source}, but holds {known}; say under `rename` what the run "
            "calls it"
        )
    found = _look(module, source, weights)
    if found.fresh and not plan.partial:
        raise SslScaleError(
            f"{folder} must hold all of {part}, but lacks {_some(found.fresh)}; change the part's "
            "arguments, or write `partial: true` to start these afresh"
        )
    if found.misshapen and not plan.partial:
        raise SslScaleError(
            f"{part}: {'; '.join(found.misshapen[:3])} in {folder}; change the part's arguments, "
            "or write `partial: true` to start these afresh"
        )
    _write(module, found)
    # Checkpoints hold all buffers, also those that are made anew with their module.
    anew = {name for name, _ in module.named_buffers()} - module.state_dict().keys()
    used = {f"{source}.{name}" for name in (*found.values, *anew)}
    loose = [text.partition(" ")[0] for text in found.misshapen]
    return Report(
        folder,
        tuple(found.values),
        (*found.fresh, *loose),
        tuple(sorted(available - used)),
        tuple(found.reshaped),
        weights.reader.commit["step"],
        plan.teacher,
    )


def _look(module: nn.Module, source: str, weights: Weights) -> _Found:
    """Compare names and shapes; nothing is read or written."""
    found = _Found()
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
            found.values[name] = _reading(weights, full)
        elif grid is not None and theirs[1:] == mine[1:]:
            found.values[name] = _resizing(weights, full, grid, grids[name])
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


def _reading(weights: Weights, name: str) -> Callable[[], Tensor]:
    return lambda: weights.read(name)


def _resizing(
    weights: Weights, name: str, old: tuple[int, ...], new: tuple[int, ...]
) -> Callable[[], Tensor]:
    return lambda: resized(weights.read(name), old, new)


def _write(module: nn.Module, found: _Found) -> None:
    buffers = dict(module.named_buffers())
    parameters = dict(module.named_parameters())
    for name, make in found.values.items():
        if name in buffers:
            buffers[name].copy_(make())
        else:
            write_whole(parameters[name], make(), dist.rank())
    refresh_persistent(parameters.values())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
