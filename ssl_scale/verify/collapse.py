"""What a loss says when all features are equal, where many self-supervised ones could fall."""

import torch
from torch import Tensor, nn

from ssl_scale.verify.finding import Finding
from ssl_scale.verify.loading import Choice
from ssl_scale.verify.world import World, make_samples

NUM, STEPS, RATE = 13, 60, 0.03


def collapse(choice: Choice) -> Finding:
    """Finite at constant features; and a note where it is nowhere lower."""
    world = choice.world()
    world.make_constant()
    loss, gradients = _loss(world)
    told = []
    if not loss.isfinite() or not all(bool(g.isfinite().all()) for g in gradients):
        told.append(f"at constant features the loss is {float(loss):g}, or a gradient not finite")
        return Finding("collapse", "fails", told="; ".join(told))
    lowest = _descend(world, world.objective)
    trained = _descend(free := choice.world(), free)
    told.append(f"{lowest:.4g} at constant features, {trained:.4g} after {STEPS} steps elsewhere")
    if lowest <= trained + 1e-3 * abs(trained):
        told.append("nothing in the loss itself keeps features from collapsing")
        return Finding("collapse", "note", told="; ".join(told))
    return Finding("collapse", "ok", told="; ".join(told))


def _descend(world: World, trained: nn.Module) -> float:
    """The loss after some steps of Adam."""
    parameters = [p for p in trained.parameters() if p.requires_grad]
    if not parameters:
        return float(_loss(world)[0])
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    for _ in range(STEPS):
        world.zero_grad()
        _loss(world)
        optimizer.step()
    return float(_loss(world)[0])


def _loss(world: World) -> tuple[Tensor, list[Tensor]]:
    step = world.step(make_samples(NUM))
    loss = world.objective(step).total / world.objective.count(step).clamp(min=1)
    loss.backward()
    return loss.detach(), [p.grad for p in world.parameters() if p.grad is not None]
