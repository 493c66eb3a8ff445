"""What one optimizer step sees of an objective, divided and averaged as the engine does."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_scale import dist
from ssl_scale.verify.world import Samples, World


@dataclass
class Outcome:
    """What one optimizer step would see: the same on every rank.

    Args:
        value: the global loss.
        gradients: parameter name -> global gradient; of parameters that the loss does not reach,
            zeros.
        buffers: the objective's, after the step.
    """

    value: Tensor
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]


def train_step(world: World, micro_batches: Iterable[Samples]) -> Outcome:
    """Loss and gradients of this rank's micro-batches; a collective."""
    steps = [world.step(samples) for samples in micro_batches]
    local = torch.stack([world.objective.count(step).double() for step in steps]).sum()
    count = dist.reduce(local).clamp(min=1)
    value = torch.zeros((), dtype=torch.float64)
    for step in steps:
        total = world.objective(step).total
        (total * dist.world_size() / count).backward()
        value += dist.reduce(total.detach().double()) / count
    gradients = {
        path: dist.reduce(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
        / dist.world_size()
        for path, parameter in world.named_parameters()
        if parameter.requires_grad
    }
    return Outcome(value, gradients, dict(world.objective.named_buffers()))
