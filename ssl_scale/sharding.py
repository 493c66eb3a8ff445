"""This rank's piece of a parameter, partitioned by DeepSpeed ZeRO-3 or whole.

ZeRO-3 cuts each parameter, flattened, into equal pieces (the last ones padded) and keeps this
rank's in ``ds_tensor``; ``data`` is empty outside forward and backward. Small parameters stay whole
("persistent"), and a write to their ``ds_tensor`` is not seen until they are partitioned and
gathered again. Nothing here imports DeepSpeed: the attributes are on the parameter or they are not.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Slice:
    """A piece of a flattened tensor: elements ``start .. start + numel``."""

    start: int
    numel: int


def is_partitioned(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 holds this parameter in pieces."""
    return hasattr(parameter, "ds_tensor")


def full_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """The parameter's shape, whole."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def full_numel(parameter: nn.Parameter) -> int:
    """How many numbers the whole parameter holds."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def local_values(parameter: nn.Parameter) -> Tensor:
    """This rank's piece, flat, writable; under ZeRO-3 with its padding."""
    if is_partitioned(parameter):
        piece: Tensor = parameter.ds_tensor.data.view(-1)  # type: ignore[attr-defined]
        return piece
    return parameter.data.view(-1)


def local_slice(parameter: nn.Parameter, rank: int) -> Slice:
    """Which elements of the whole `local_values` starts with; padding is left out."""
    if not is_partitioned(parameter):
        return Slice(0, parameter.numel())
    width = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
    start = min(rank * width, full_numel(parameter))
    return Slice(start, min(width, full_numel(parameter) - start))


@runtime_checkable
class Shards(Protocol):
    """This rank's pieces of what the optimizer steps, in fp32, for teachers that follow it."""

    def master(self, student: nn.Parameter) -> Tensor:
        """The values of this rank's piece, flat."""

    def place(self, student: nn.Parameter) -> Slice:
        """Which elements of a copy's `local_values` that piece is."""

    def complete(self, pairs: Sequence[tuple[nn.Parameter, nn.Parameter]]) -> None:
        """Make whole what each rank has written its pieces of.

        Args:
            pairs: copies and the student's parameters, the same on all ranks.
        """


class Unsharded(Shards):
    """One process, plain PyTorch."""

    def master(self, student: nn.Parameter) -> Tensor:
        """All of it, in fp32 unless it is finer."""
        values = local_values(student)
        return values.to(torch.promote_types(values.dtype, torch.float32))

    def place(self, student: nn.Parameter) -> Slice:
        """All of it."""
        return Slice(0, student.numel())

    def complete(self, pairs: Sequence[tuple[nn.Parameter, nn.Parameter]]) -> None:
        """Nothing is missing."""


@torch.no_grad()
def refresh_persistent(parameters: Iterable[nn.Parameter]) -> None:
    """Make writes to the pieces of persistent parameters visible to forward passes.

    So are those to others, unless a node keeps copies of its own for the backward pass (hpZ): they
    are forgotten here. A collective: every rank calls it for the same parameters.
    """
    partitioned = [p for p in parameters if is_partitioned(p)]
    for parameter in partitioned:
        if getattr(parameter, "ds_secondary_tensor", None) is not None:
            parameter.ds_secondary_tensor = None  # type: ignore[attr-defined]
    whole = [p for p in partitioned if getattr(p, "ds_persist", False)]
    if whole:
        whole[0].partition(param_list=whole, has_been_updated=False)  # type: ignore[attr-defined]
        whole[0].all_gather(whole)  # type: ignore[attr-defined]


@torch.no_grad()
def write_whole(parameter: nn.Parameter, values: Tensor, rank: int) -> None:
    """Give a parameter its values, of which a rank keeps its piece.

    After the last one `refresh_persistent` makes them visible.
    """
    place = local_slice(parameter, rank)
    piece = values.reshape(-1)[place.start : place.start + place.numel]
    local_values(parameter)[: place.numel].copy_(piece)


def build_whole(make: Callable[[], M]) -> M:
    """Build a module of which one part initialises another; ours never do, other libraries' do.

    Where ``deepspeed.zero.Init`` is at work it partitions each part as soon as that is built, so
    that nobody can initialise it afterwards. Here the module is partitioned when it is done: until
    then every rank holds all of it.
    """
    zero = sys.modules.get("deepspeed.runtime.zero.partition_parameters")
    context = getattr(zero, "top_level_context", None)
    if zero is None or context is None:
        return make()
    zero.shutdown_init_context()
    try:
        made = make().to(context.dtype)
    finally:
        zero.restore_init_context()
    context._convert_to_zero_parameters(list(made.parameters()))
    return made
