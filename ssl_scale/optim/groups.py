"""Which parameters decay, and at what share of the learning rate they move.

Groups are told apart by name and by whole shape (under ZeRO-3 a parameter's own shape is empty),
so they are the same on every rank and at every stage.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ssl_scale.errors import RecipeError
from ssl_scale.optim.optimizer import Optimizer
from ssl_scale.sharding import full_numel, full_shape

# Tables of positions, prefix and mask tokens are added to activations, not multiplied with them:
# decay would only pull them to nothing. Biases, norms and temperatures have at most one dimension.
_NEVER_DECAYS = r"(^|\.)(table|tokens?|log_scale)$"


def parameter_groups(module: nn.Module, optim: Optimizer) -> list[dict[str, Any]]:
    """The trained parameters in groups that share a learning rate and decay alike.

    Args:
        module: holds the parameters; frozen ones are left out.
        optim: its `lr_scales` and `no_decay` tell the groups.

    Returns:
        Groups for a torch optimizer, each also with ``name``, ``names`` (of its parameters),
        ``lr_scale`` and ``wd_scale``.

    Raises:
        RecipeError: a pattern is no regular expression, or matches no trained parameter.
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    scales = {_compiled(pattern, "lr_scales"): scale for pattern, scale in optim.lr_scales.items()}
    exempt = [_compiled(pattern, "no_decay") for pattern in optim.no_decay]
    for option, patterns in (("lr_scales", scales), ("no_decay", exempt)):
        _check_used(option, patterns, [name for name, _ in trained])
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in trained:
        lr_scale = next((scales[found] for found in scales if found.search(name)), 1.0)
        decays = len(full_shape(parameter)) > 1 and not any(
            found.search(name) for found in (re.compile(_NEVER_DECAYS), *exempt)
        )
        key = (lr_scale, float(decays))
        group = groups.setdefault(key, _empty_group(*key))
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def apply_schedules(optimizer: torch.optim.Optimizer, optim: Optimizer, progress: float) -> None:
    """Write learning rate and weight decay at a fraction of training into the groups."""
    lr, weight_decay = optim.lr(progress), optim.weight_decay(progress)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
        group["weight_decay"] = weight_decay * group["wd_scale"]


def describe_groups(groups: Sequence[Mapping[str, Any]]) -> str:
    """A table of the groups: name, tensors, numbers, scales and a first parameter."""
    rows = [("group", "tensors", "numbers", "lr x", "decay x", "such as")]
    for group in groups:
        numbers = sum(full_numel(parameter) for parameter in group["params"])
        rows.append(
            (
                group["name"],
                f"{len(group['params']):,}",
                f"{numbers:,}",
                f"{group['lr_scale']:g}",
                f"{group['wd_scale']:g}",
                group["names"][0],
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(_aligned, row, widths, range(len(row)))).rstrip() for row in rows)
    return "\n".join(lines)


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if 1 <= column <= 4 else cell.ljust(width)


def _empty_group(lr_scale: float, wd_scale: float) -> dict[str, Any]:
    name = "decay" if wd_scale else "no decay"
    if lr_scale != 1:
        name = f"{name}, lr x {lr_scale:g}"
    return {"params": [], "names": [], "name": name, "lr_scale": lr_scale, "wd_scale": wd_scale}


def _compiled(pattern: str, option: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise RecipeError(
            f"optim.{option}: {pattern!r} must be a regular expression, but {error}"
        ) from error


def _check_used(option: str, patterns: Iterable[re.Pattern[str]], names: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(pattern.search(name) for name in names):
            some = ", ".join(sorted({name.rpartition(".")[0] for name in names})[:4])
            raise RecipeError(
                f"optim.{option}: {pattern.pattern!r} must match the name of a trained parameter, "
                f"but matches none; they are in {some}, ..."
            )
