"""Which parameters decay, at what share of the learning rate they move, and from when on.

Groups are told apart by name and by whole shape (under ZeRO-3 a parameter's own shape is empty),
so they are the same on every rank and at every stage.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from ssl_scale.errors import RecipeError
from ssl_scale.optim.depth import layer_scales
from ssl_scale.optim.freezing import Freeze
from ssl_scale.optim.group import Group
from ssl_scale.optim.optimizer import Optimizer
from ssl_scale.sharding import full_numel, full_shape

# Tables of positions, prefix and mask tokens are added to activations, not multiplied with them:
# decay would only pull them to nothing. Biases, norms and temperatures have at most one dimension.
_NEVER_DECAYS = re.compile(r"(^|\.)(table|tokens?|log_scale)$")


def parameter_groups(module: nn.Module, optim: Optimizer) -> list[dict[str, Any]]:
    """The trained parameters in groups that share how they move.

    Parameters that are frozen for all of training are told to need no gradient, and left out.

    Args:
        module: holds the parameters; those that need no gradient are left out.
        optim: its `groups` and `layer_decay` tell the groups.

    Returns:
        Groups for a torch optimizer, each also with ``name``, ``names`` (of its parameters),
        ``lr_scale``, ``wd_scale``, ``own_weight_decay`` (in place of the optimizer's; or None),
        ``is_layerwise`` (whether norms of its layers count) and ``freeze`` (or None).

    Raises:
        RecipeError: a pattern matches no trained parameter, or an encoder has no layers.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    _check_used(optim.groups, list(trained))
    scales = dict.fromkeys(trained, 1.0)
    if optim.layer_decay != 1:
        scales = layer_scales(module, trained, optim.layer_decay)
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, parameter in trained.items():
        own_scale = _setting(optim.groups, name, "lr_scale")
        until = _setting(optim.groups, name, "freeze_until")
        if until == 1:
            parameter.requires_grad_(False)
            continue
        key = (
            scales[name] * (1.0 if own_scale is None else own_scale),
            len(full_shape(parameter)) > 1 and not _NEVER_DECAYS.search(name),
            _setting(optim.groups, name, "weight_decay"),
            until or 0.0,
        )
        group = groups.setdefault(key, _empty_group(*key))
        group["params"].append(parameter)
        group["names"].append(name)
        if group["freeze"] is not None:
            group["freeze"].hold(parameter)
    return list(groups.values())


def describe_groups(groups: Sequence[Mapping[str, Any]]) -> str:
    """A table of the groups: name, tensors, numbers, scales and a first parameter."""
    rows = [("group", "tensors", "numbers", "lr x", "decay", "such as")]
    for group in groups:
        numbers = sum(full_numel(parameter) for parameter in group["params"])
        own = group["own_weight_decay"]
        rows.append(
            (
                group["name"],
                f"{len(group['params']):,}",
                f"{numbers:,}",
                f"{group['lr_scale']:g}",
                f"x {group['wd_scale']:g}" if own is None else f"{own:g}",
                group["names"][0],
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(_aligned, row, widths, range(len(row)))).rstrip() for row in rows)
    return "\n".join(lines)


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if 1 <= column <= 4 else cell.ljust(width)


def _empty_group(
    lr_scale: float, multiplies: bool, weight_decay: float | None, until: float
) -> dict[str, Any]:
    name = "decay" if multiplies else "no decay"
    if weight_decay is not None:
        name = f"weight decay {weight_decay:g}"
    if lr_scale != 1:
        name = f"{name}, lr x {lr_scale:.6g}"
    if until:
        name = f"{name}, frozen until {f'{until:g}' if until <= 1 else f'step {until:.0f}'}"
    return {
        "params": [],
        "names": [],
        "name": name,
        "lr_scale": lr_scale,
        "wd_scale": float(multiplies),
        "own_weight_decay": weight_decay,
        "is_layerwise": multiplies,
        "freeze": Freeze(until) if until else None,
    }


def _setting(groups: Iterable[Group], name: str, setting: str) -> float | None:
    """What the first group that matches and sets it says."""
    said = (getattr(group, setting) for group in groups if group.holds(name))
    return next((value for value in said if value is not None), None)


def _check_used(groups: Iterable[Group], names: Sequence[str]) -> None:
    for group in groups:
        if not any(map(group.holds, names)):
            near = difflib.get_close_matches(group.match, names, n=3, cutoff=0)
            raise RecipeError(
                f"optim.groups: {group.match!r} must match the name of a trained parameter, but "
                f"matches none; the closest are {', '.join(near)}"
            )
