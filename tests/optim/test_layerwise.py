"""SGD, LARS and LAMB against their papers, number by number, in float64."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ssl_scale.optim.groups import parameter_groups
from ssl_scale.optim.lamb import LAMB, LAMBSteps
from ssl_scale.optim.lars import LARS
from ssl_scale.optim.layerwise import Run
from ssl_scale.optim.optimizer import Optimizer
from ssl_scale.optim.schedule import Cosine
from ssl_scale.optim.sgd import SGD

STEPS = 5
LR, DECAY = Cosine(0.2, 0.05), Cosine(0.1, 0.4)


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()


def train(optim: Optimizer) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
    """Parameters before and after some steps, and the gradients of each step."""
    model = two_layers()
    start = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = optim.build(parameter_groups(model, optim))
    gradients = [[torch.randn_like(p) for p in model.parameters()] for _ in range(STEPS)]
    for step, gradient in enumerate(gradients):
        optim.apply(optimizer, step / STEPS, step)
        for parameter, value in zip(model.parameters(), gradient, strict=True):
            parameter.grad = value.clone()
        optimizer.step()
    return start, [p.detach() for p in model.parameters()], gradients


def length(values: list[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in values))


Numbers = list[float]


def lars(w: Numbers, g: Numbers, state: dict[str, Numbers], step: int, matrix: bool) -> Numbers:
    """Algorithm 1 of arXiv 1708.03888, with the ratio and the momentum of BYOL's code."""
    lr, decay = LR(step / STEPS), DECAY(step / STEPS) if matrix else 0.0
    u = [a + decay * b for a, b in zip(g, w, strict=True)]
    trust = 0.01 * length(w) / length(u) if matrix else 1.0
    v = state.get("v", [0.0] * len(w))
    state["v"] = [0.8 * a + trust * b for a, b in zip(v, u, strict=True)]
    return [a - lr * b for a, b in zip(w, state["v"], strict=True)]


def lamb(w: Numbers, g: Numbers, state: dict[str, Numbers], step: int, matrix: bool) -> Numbers:
    """Algorithm 2 of arXiv 1904.00962."""
    lr, decay = LR(step / STEPS), DECAY(step / STEPS) if matrix else 0.0
    zeros = [0.0] * len(w)
    m = [0.7 * a + 0.3 * b for a, b in zip(state.get("m", zeros), g, strict=True)]
    v = [0.9 * a + 0.1 * b * b for a, b in zip(state.get("v", zeros), g, strict=True)]
    state["m"], state["v"] = m, v
    grown = (1 - 0.7 ** (step + 1), 1 - 0.9 ** (step + 1))
    r = [a / grown[0] / (math.sqrt(b / grown[1]) + 1e-3) for a, b in zip(m, v, strict=True)]
    u = [a + decay * b for a, b in zip(r, w, strict=True)]
    trust = length(w) / length(u) if matrix else 1.0
    return [a - lr * trust * b for a, b in zip(w, u, strict=True)]


def sgd(w: Numbers, g: Numbers, state: dict[str, Numbers], step: int, matrix: bool) -> Numbers:
    """Equations 1 and 2 of Sutskever et al., the rate outside of the momentum."""
    lr, decay = LR(step / STEPS), DECAY(step / STEPS) if matrix else 0.0
    u = [a + decay * b for a, b in zip(g, w, strict=True)]
    v = [0.8 * a + b for a, b in zip(state.get("v", [0.0] * len(w)), u, strict=True)]
    state["v"] = v
    return [a - lr * b for a, b in zip(w, v, strict=True)]


def nesterov(w: Numbers, g: Numbers, state: dict[str, Numbers], step: int, matrix: bool) -> Numbers:
    """As `sgd`, but one step ahead along the momentum."""
    lr, decay = LR(step / STEPS), DECAY(step / STEPS) if matrix else 0.0
    u = [a + decay * b for a, b in zip(g, w, strict=True)]
    v = [0.8 * a + b for a, b in zip(state.get("v", [0.0] * len(w)), u, strict=True)]
    state["v"] = v
    return [a - lr * (b + 0.8 * c) for a, b, c in zip(w, u, v, strict=True)]


CASES = [
    (SGD(LR, DECAY, momentum=0.8), sgd),
    (SGD(LR, DECAY, momentum=0.8, nesterov=True), nesterov),
    (LARS(LR, DECAY, momentum=0.8, trust=0.01), lars),
    (LAMB(LR, DECAY, betas=(0.7, 0.9), eps=1e-3), lamb),
]
Rule = Callable[[Numbers, Numbers, dict[str, Numbers], int, bool], Numbers]


@pytest.mark.parametrize(("optim", "rule"), CASES, ids=[rule.__name__ for _, rule in CASES])
def test_it_follows_its_paper(optim: Optimizer, rule: Rule) -> None:
    start, end, gradients = train(optim)
    for place, first in enumerate(start):
        weights, state = first.flatten().tolist(), {}
        for step in range(STEPS):
            gradient = gradients[step][place].flatten().tolist()
            weights = rule(weights, gradient, state, step, first.ndim > 1)
        wanted = torch.tensor(weights, dtype=torch.float64)
        torch.testing.assert_close(end[place].flatten(), wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("optim", [LARS(LR, DECAY), LAMB(LR, DECAY)])
@pytest.mark.parametrize(("weight", "gradient"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_a_layer_without_weights_or_gradient_moves_unscaled_and_finite(
    optim: Optimizer, weight: float, gradient: float
) -> None:
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data.fill_(weight)
    optimizer = optim.build(parameter_groups(layer, optim))
    optimizer.param_groups[0]["weight_decay"] = 0.0
    layer.weight.grad = torch.full((2, 2), gradient)
    optimizer.step()
    moved = float((layer.weight.detach() - weight).abs().max())
    assert moved == pytest.approx(0.2 * gradient if not weight else 0.0, abs=1e-6)


def test_flat_tensors_are_scaled_parameter_by_parameter() -> None:
    """As ZeRO's flat partitions on one rank: two layers and padding in one tensor."""
    layers = [torch.randn(3, 4).double(), 5 * torch.randn(2, 2).double()]
    gradients = [torch.randn_like(layer) for layer in layers]
    settings = {"betas": (0.9, 0.99), "eps": 1e-6, "lr": 0.1, "weight_decay": 0.1}
    settings["is_layerwise"] = True
    apart = LAMBSteps([{"params": copy.deepcopy(layers)}], settings)
    padding = torch.zeros(3).double()
    flat = torch.cat([layers[0].flatten(), layers[1].flatten(), padding])
    together = LAMBSteps([{"params": [flat]}], settings)
    together.divide({flat: [Run(0, 12), Run(0, 0), Run(12, 4)]})
    for _ in range(3):
        for layer, gradient in zip(apart.param_groups[0]["params"], gradients, strict=True):
            layer.grad = gradient
        flat.grad = torch.cat([gradients[0].flatten(), gradients[1].flatten(), padding])
        apart.step()
        together.step()
    wanted = torch.cat([layer.flatten() for layer in apart.param_groups[0]["params"]])
    torch.testing.assert_close(flat[:16], wanted, rtol=1e-12, atol=0)
    assert not flat[16:].any()


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValueError, match="momentum must be above 0 with nesterov, but is 0"):
        SGD(LR, momentum=0.0, nesterov=True)


@pytest.mark.parametrize("kind", [SGD, LARS, LAMB])
def test_a_rate_can_be_meant_for_a_number_of_samples(kind: type[SGD]) -> None:
    assert kind(LR, lr_per=256, global_batch=1024).learning_rate(0.0) == pytest.approx(0.8)
    assert kind(LR, global_batch=1024).learning_rate(0.0) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="lr_per must be 0 without a global batch, but is 256"):
        kind(LR, lr_per=256)
