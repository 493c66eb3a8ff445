"""Floating-point operations and activations of one micro-batch, counted while it runs on shapes.

The step that is counted is the one that trains: every active objective, the teachers' forward
passes, the backward pass. A multiplication and an addition are two operations; matrix products,
convolutions and attention count, nothing else, as is usual (torch's `FlopCounterMode`). Blocks that
are computed again in the backward pass (``recompute``) count again: that is what the device does.
"""

import gc
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ssl_scale.plan.places import places_only
from ssl_scale.plan.world import WorldAnswers
from ssl_scale.system.system import System
from ssl_scale.types import Batch


@dataclass(frozen=True)
class Counted:
    """What a micro-batch costs one rank.

    Args:
        forward: operations of the forward passes, teachers included.
        backward: operations of the backward pass.
        activations: bytes that are kept from the forward pass for the backward one.
    """

    forward: float
    backward: float
    activations: float

    @property
    def flops(self) -> float:
        """Operations of both passes."""
        return self.forward + self.backward

    def times(self, factor: float) -> "Counted":
        """Of so many times as many samples."""
        return Counted(self.forward * factor, self.backward * factor, self.activations * factor)


def count_micro_batch(
    system: System, batch: Batch, world_size: int = 1, progress: float = 0.0
) -> Counted:
    """Count one micro-batch of a source.

    Args:
        system: on the meta device, or with values.
        batch: see `make_batch`.
        world_size: ranks whose rows losses compare with this rank's.
        progress: fraction of training done: decides which objectives are active.
    """
    saved = _Saved(system)
    answers = WorldAnswers(system, batch, progress=progress)
    answers.world_size = world_size
    with places_only(), FlopCounterMode(display=False, custom_mapping=_MAPPING) as counter:
        with torch.autograd.graph.saved_tensors_hooks(saved.add, _as_it_is):
            losses = [loss.total for loss in system.losses(answers).values()]
            total = torch.stack(losses).sum()
        forward = counter.get_total_flops()
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
        both = counter.get_total_flops()
    for parameter in system.parameters():
        parameter.grad = None
    del answers, losses, total
    gc.collect()  # answers and autograd's graph hold each other
    return Counted(forward, both - forward, saved.num_bytes)


class _Saved:
    """Adds up what autograd keeps; parameters and their views are there anyway."""

    def __init__(self, system: nn.Module) -> None:
        self.seen = {_storage(tensor) for tensor in system.state_dict(keep_vars=True).values()}
        self.num_bytes = 0

    def add(self, tensor: Tensor) -> Tensor:
        storage = _storage(tensor)
        if storage not in self.seen:
            self.seen.add(storage)
            self.num_bytes += tensor.untyped_storage().nbytes()
        return tensor


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _attention_backward(
    gradient: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any
) -> int:
    """Four products, twice the forward pass: the fifth, of scores anew, is the kernel's own."""
    forward: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return 2 * forward


_MAPPING = {torch.ops.aten._scaled_dot_product_flash_attention_backward: _attention_backward}
