"""What a system's tensors are, as far as memory goes: how many numbers, and who moves them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ssl_scale.optim.groups import parameter_groups
from ssl_scale.optim.optimizer import Optimizer
from ssl_scale.sharding import full_numel
from ssl_scale.system.system import System
from ssl_scale.teachers.ema import EMATeacher


@dataclass(frozen=True)
class Part:
    """One encoder, head, objective or teacher.

    Args:
        name: its place in the recipe.
        trained: numbers that gradients move.
        fixed: numbers that they do not.
    """

    name: str
    trained: int
    fixed: int


@dataclass(frozen=True)
class Inventory:
    """The tensors of a system.

    Args:
        parts: what they belong to.
        groups: numbers of each trained parameter, in the optimizer's groups and in their order.
        followed: of each of these, how many teachers average it.
        frozen: numbers of each parameter of the student that stays as it is.
        averaged: numbers of each parameter of teachers that average.
        copied: numbers of each parameter of other teachers.
        buffers: bytes of all buffers.
        names: of all parameters and buffers.
    """

    parts: tuple[Part, ...]
    groups: tuple[tuple[int, ...], ...]
    followed: tuple[tuple[int, ...], ...]
    frozen: tuple[int, ...]
    averaged: tuple[int, ...]
    copied: tuple[int, ...]
    buffers: int
    names: tuple[str, ...]

    @property
    def trained(self) -> int:
        """Numbers that gradients move."""
        return sum(map(sum, self.groups))

    @property
    def num_followed(self) -> int:
        """Numbers of averages of trained parameters."""
        pairs = zip(self.groups, self.followed, strict=True)
        return sum(n * count for pair in pairs for n, count in zip(*pair, strict=True))

    @property
    def taught(self) -> tuple[int, ...]:
        """Numbers of each parameter of all teachers."""
        return (*self.averaged, *self.copied)


def take_stock(system: System, optim: Optimizer) -> Inventory:
    """List a system's tensors; shapes are enough.

    Parameters that the optimizer freezes for good are told to need no gradient.
    """
    groups = parameter_groups(system, optim)
    ids = {
        kind: {id(p) for teacher in teachers for p in teacher.parameters()}
        for kind, teachers in _teachers_by_kind(system).items()
    }
    rest = [p for p in system.parameters() if not p.requires_grad]
    averaged = [p for p in rest if id(p) in ids["averaged"]]
    copied = [p for p in rest if id(p) in ids["copied"]]
    frozen = [p for p in rest if id(p) not in ids["averaged"] | ids["copied"]]
    buffers = dict(system.named_buffers())
    followers = Counter(
        id(student)
        for teacher in system.teachers.values()
        if isinstance(teacher, EMATeacher)
        for _, _, student in teacher.pairs(system)
    )
    return Inventory(
        parts=tuple(_parts(system)),
        groups=tuple(tuple(map(full_numel, group["params"])) for group in groups),
        followed=tuple(tuple(followers[id(p)] for p in group["params"]) for group in groups),
        frozen=tuple(map(full_numel, frozen)),
        averaged=tuple(map(full_numel, averaged)),
        copied=tuple(map(full_numel, copied)),
        buffers=sum(buffer.nbytes for buffer in buffers.values()),
        names=(*(name for name, _ in system.named_parameters()), *buffers),
    )


def _teachers_by_kind(system: System) -> dict[str, list[nn.Module]]:
    found: dict[str, list[nn.Module]] = {"averaged": [], "copied": []}
    for teacher in system.teachers.values():
        found["averaged" if isinstance(teacher, EMATeacher) else "copied"].append(teacher)
    return found


def _parts(system: System) -> list[Part]:
    """A parameter that several parts hold counts for the first."""
    found: dict[str, list[int]] = {}
    for name, parameter in system.named_parameters():
        numbers = found.setdefault(".".join(name.split(".")[:2]), [0, 0])
        numbers[not parameter.requires_grad] += full_numel(parameter)
    return [Part(name, trained, fixed) for name, (trained, fixed) in found.items()]


def moments_of(optim: Optimizer) -> int:
    """How many numbers an optimizer remembers for each number that it moves.

    Asked of the optimizer itself: it steps once.
    """
    with torch.device("cpu"):
        parameter = nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.ones_like(parameter)
    group: Mapping[str, Any] = {
        "params": [parameter],
        "names": ["weight"],
        "name": "decay",
        "lr_scale": 1.0,
        "wd_scale": 1.0,
        "own_weight_decay": None,
        "is_layerwise": True,
        "freeze": None,
    }
    optimizer = optim.build([dict(group)])
    optimizer.step()
    state = optimizer.state[parameter]
    return sum(value.numel() == 4 for value in state.values() if isinstance(value, torch.Tensor))
