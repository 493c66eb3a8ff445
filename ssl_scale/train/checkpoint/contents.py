"""What one rank contributes to a checkpoint, and how it takes its share back.

Every tensor is cut flat: a piece is (name, first element, values). The kinds are ``master/`` (fp32
values of trained parameters), ``moment.<name>/`` (the optimizer's), ``value/`` (parameters that
gradients do not train: teachers in fp32, frozen parts), ``buffer/`` and ``observer/`` (what the
run's callbacks remember). So any world size and ZeRO stage can read what another wrote.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ssl_scale import dist
from ssl_scale.checkpoint.reader import Reader
from ssl_scale.sharding import (
    full_shape,
    is_partitioned,
    local_slice,
    local_values,
    refresh_persistent,
)
from ssl_scale.train.sharded import ShardedState


@dataclass(frozen=True)
class Piece:
    """A flat run of one tensor's elements.

    Args:
        values: the elements, flat.
        start: the first one's place in the flattened tensor.
        shape: the whole tensor's shape.
    """

    values: Tensor
    start: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Contents:
    """One rank's pieces, and the optimizer's step counter of each parameter it holds."""

    pieces: dict[str, Piece] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)


def capture(
    sharded: ShardedState, fp32_shards: dict[str, Tensor], observed: Mapping[str, Tensor]
) -> Contents:
    """This rank's slices, mostly as they live: copy them before the next optimizer step.

    What forward passes change too, buffers and observers' state, is copied here.

    Args:
        sharded: the engine's trained parameters.
        fp32_shards: parameter name -> this rank's fp32 piece, of teachers stored in less.
        observed: name -> tensor of the observers' state, equal on all ranks.
    """
    contents = Contents()
    replicated = sharded.stage == 0 and dist.rank() != 0
    for name, fragment in sharded.fragments.items():
        if replicated or fragment.place.numel == 0:
            continue
        shape = full_shape(fragment.parameter)
        start = fragment.place.start
        contents.pieces[f"master/{name}"] = Piece(fragment.master(), start, shape)
        for key, value in sharded.moments(fragment).items():
            contents.pieces[f"moment.{key}/{name}"] = Piece(value, start, shape)
        if (counter := sharded.counter(fragment)) is not None:
            contents.counters[name] = counter
    for name, parameter in _untrained(sharded):
        place, values = local_slice(parameter, dist.rank()), local_values(parameter)
        is_piece = is_partitioned(parameter)
        if name in fp32_shards:
            values = fp32_shards[name]
            student = sharded.fragments.get(_copied(name))
            if student is not None and sharded.is_scattered(student.parameter):
                place, is_piece = student.place, True
        if place.numel and (is_piece or dist.rank() == 0):
            piece = Piece(values.view(-1)[: place.numel], place.start, full_shape(parameter))
            contents.pieces[f"value/{name}"] = piece
    if dist.rank() == 0:
        contents.pieces.update(_whole("buffer", dict(sharded.module.named_buffers())))
        contents.pieces.update(_whole("observer", observed))
    return contents


def _whole(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Piece]:
    return {
        f"{kind}/{name}": Piece(tensor.detach().reshape(-1).clone(), 0, tuple(tensor.shape))
        for name, tensor in tensors.items()
    }


def read_observed(reader: Reader) -> dict[str, Tensor]:
    """The observers' state, as `capture` was given it."""
    return {name: reader.read_whole(f"observer/{name}") for name in reader.names("observer")}


@torch.no_grad()
def restore(sharded: ShardedState, reader: Reader) -> dict[str, Tensor]:
    """Write a checkpoint's values into this rank's slices.

    Returns:
        Untrained parameter name -> local values as saved, for teachers that keep fp32 copies.
    """
    for name, fragment in sharded.fragments.items():
        place = fragment.place
        if place.numel:
            fragment.master().copy_(reader.read(f"master/{name}", place.start, place.numel))
            moments = {
                kind.removeprefix("moment."): reader.read(
                    f"{kind}/{name}", place.start, place.numel
                )
                for kind in reader.kinds(name)
                if kind.startswith("moment.")
            }
            sharded.restore_moments(fragment, moments, reader.counter(name))
        if not is_partitioned(fragment.parameter):
            whole = reader.read_whole(f"master/{name}")
            fragment.parameter.data.copy_(whole.view(full_shape(fragment.parameter)))
    sharded.publish_masters()
    shards: dict[str, Tensor] = {}
    for name, parameter in _untrained(sharded):
        place = local_slice(parameter, dist.rank())
        saved = reader.read(f"value/{name}", place.start, place.numel)
        local = local_values(parameter)
        shards[name] = torch.zeros(local.shape, dtype=torch.float32, device=local.device)
        shards[name][: place.numel] = saved
        local[: place.numel].copy_(saved)
    refresh_persistent(p for _, p in _untrained(sharded))
    for name, buffer in sharded.module.named_buffers():
        buffer.copy_(reader.read_whole(f"buffer/{name}").view(buffer.shape))
    return shards


def _copied(name: str) -> str:
    """The student's parameter that a teacher's is a copy of: ``teachers.<name>.<the same>``."""
    return name.split(".", 2)[2]


def _untrained(sharded: ShardedState) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in sharded.module.named_parameters():
        if name not in sharded.fragments:
            yield name, parameter
