"""Groups that stand still for a while: weights, moments, counters and gradients."""

from typing import Any

import pytest
import torch
from torch import nn

from ssl_scale.optim.freezing import Freeze
from ssl_scale.optim.group import Group
from ssl_scale.optim.groups import parameter_groups
from ssl_scale.optim.lamb import LAMB
from ssl_scale.optim.lars import LARS
from ssl_scale.optim.optimizer import AdamW, Optimizer
from ssl_scale.optim.schedule import Constant
from ssl_scale.optim.sgd import SGD

LR, DECAY = Constant(0.1), Constant(0.3)
KINDS = [AdamW, SGD, LARS, LAMB]


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x)))  # type: ignore[no-any-return]


def step(model: Two, optim: Optimizer, optimizer: Any, index: int, total: int = 8) -> None:
    optim.apply(optimizer, index / total, index)
    optimizer.zero_grad(set_to_none=False)
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(index))
    model(inputs).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("until", [0.5, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_group_stands_still_and_then_starts_as_if_new(
    kind: type[AdamW], until: float
) -> None:
    model = Two()
    before = [p.detach().clone() for p in model.last.parameters()]
    optim = kind(LR, DECAY, groups=(Group("last.*", freeze_until=until),))
    optimizer = optim.build(parameter_groups(model, optim))
    for index in range(4):
        step(model, optim, optimizer, index)
        for parameter, start in zip(model.last.parameters(), before, strict=True):
            assert torch.equal(parameter, start)
            assert not parameter.grad.any() and not optimizer.state.get(parameter)
    assert optimizer.state[model.first.weight]
    # What moves now is what a new optimizer would do, moments, counters and all.
    other = Two()
    other.load_state_dict(model.state_dict())
    other.first.requires_grad_(False)
    plain = kind(LR, DECAY)
    fresh = plain.build(parameter_groups(other, plain))
    step(model, optim, optimizer, 4)
    step(other, plain, fresh, 4)
    for parameter, wanted in zip(model.last.parameters(), other.last.parameters(), strict=True):
        assert torch.equal(parameter, wanted)
        assert parameter.grad is not None and parameter.grad.any()


def test_a_group_frozen_for_all_of_training_needs_no_gradient() -> None:
    model = Two()
    optim = AdamW(LR, groups=(Group("last.*", freeze_until=1.0),))
    groups = parameter_groups(model, optim)
    assert {name for group in groups for name in group["names"]} == {"first.weight", "first.bias"}
    assert not any(parameter.requires_grad for parameter in model.last.parameters())


def test_a_freeze_counts_in_fractions_up_to_one_and_in_steps_above() -> None:
    assert [Freeze(0.25).lasts(index / 8, index) for index in (0, 1, 2, 3)] == [1, 1, 0, 0]
    assert [Freeze(3).lasts(index / 8, index) for index in (0, 2, 3, 8)] == [1, 1, 0, 0]
