"""Parameter groups: what decays, what moves slower, and what the schedules write."""

import copy

import pytest
import torch
from torch import nn

from ssl_scale.errors import RecipeError
from ssl_scale.heads.temperature import Temperature
from ssl_scale.nn.position import LearnedPosition
from ssl_scale.nn.tokens import MaskFill, Prefix
from ssl_scale.optim.group import Group
from ssl_scale.optim.groups import describe_groups, parameter_groups
from ssl_scale.optim.optimizer import AdamW
from ssl_scale.optim.schedule import Constant, Cosine, WarmupCosine


class Model(nn.Module):
    """One of each kind of parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.position = LearnedPosition((4, 4), 8)
        self.prefix = Prefix(2, 8)
        self.fill = MaskFill(8)
        self.embedding = nn.Embedding(10, 8)
        self.norm = nn.LayerNorm(8)
        self.stem = nn.Conv2d(1, 8, 2)
        self.head = nn.Linear(8, 8)
        self.temperature = Temperature()
        self.frozen = nn.Linear(8, 8).requires_grad_(False)


def names(groups: list[dict[str, object]], name: str) -> set[str]:
    (group,) = [group for group in groups if group["name"] == name]
    assert isinstance(group["names"], list)
    return set(group["names"])


def test_only_matrices_that_multiply_activations_decay() -> None:
    groups = parameter_groups(Model(), AdamW(Constant(1.0)))
    assert names(groups, "decay") == {"embedding.weight", "stem.weight", "head.weight"}
    assert names(groups, "no decay") == {
        "position.table",
        "prefix.tokens",
        "fill.token",
        "norm.weight",
        "norm.bias",
        "stem.bias",
        "head.bias",
        "temperature.log_scale",
    }


SLOWER = (Group("head.*", lr_scale=0.1), Group("*weight", lr_scale=0.5))


def test_every_trained_parameter_is_in_one_group_beside_its_name() -> None:
    model = Model()
    groups = parameter_groups(model, AdamW(Constant(1.0), groups=SLOWER))
    held = [pair for group in groups for pair in zip(group["names"], group["params"], strict=True)]
    expected = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(held) == len(expected)
    assert all(expected[name] is parameter for name, parameter in held)


def test_the_first_pattern_that_matches_scales_the_learning_rate() -> None:
    groups = parameter_groups(Model(), AdamW(Constant(1.0), groups=SLOWER))
    assert names(groups, "decay, lr x 0.1") == {"head.weight"}
    assert names(groups, "no decay, lr x 0.1") == {"head.bias"}
    assert names(groups, "decay, lr x 0.5") == {"embedding.weight", "stem.weight"}
    assert names(groups, "no decay, lr x 0.5") == {"norm.weight"}


def test_each_setting_comes_from_the_first_group_that_makes_it() -> None:
    settings = (Group("head.*", weight_decay=0.0), Group("*.weight", 0.5, 0.3, 2))
    groups = parameter_groups(Model(), AdamW(Constant(1.0), groups=settings))
    (head,) = [group for group in groups if "head.weight" in group["names"]]
    assert (head["lr_scale"], head["own_weight_decay"], head["freeze"].until) == (0.5, 0.0, 2)
    (norm,) = [group for group in groups if "norm.weight" in group["names"]]
    assert norm["name"] == "weight decay 0.3, lr x 0.5, frozen until step 2"


def test_further_parameters_can_be_kept_from_decaying() -> None:
    optim = AdamW(Constant(1.0), groups=(Group("embedding.*", weight_decay=0.0),))
    optimizer = optim.build(parameter_groups(Model(), optim))
    optim.apply(optimizer, 0.5, 3)
    decays = {
        name: group["weight_decay"] for group in optimizer.param_groups for name in group["names"]
    }
    assert decays["embedding.weight"] == decays["head.bias"] == 0
    assert decays["head.weight"] == decays["stem.weight"] == 0.05


def test_partitioned_parameters_are_judged_by_their_whole_shape() -> None:
    """Under ZeRO-3 a parameter is empty outside of its module's forward pass."""
    model = Model()
    whole = parameter_groups(model, AdamW(Constant(1.0)))
    table = describe_groups(whole)
    for parameter in model.parameters():
        parameter.ds_shape = parameter.shape  # type: ignore[attr-defined]
        parameter.ds_numel = parameter.numel()  # type: ignore[attr-defined]
        parameter.data = torch.empty(0)
    pieces = parameter_groups(model, AdamW(Constant(1.0)))
    assert [group["names"] for group in pieces] == [group["names"] for group in whole]
    assert describe_groups(pieces) == table


def test_a_pattern_that_matches_nothing_is_refused_and_told_the_closest_names() -> None:
    optim = AdamW(Constant(1.0), groups=(Group("haed.*", lr_scale=0.1),))
    with pytest.raises(
        RecipeError, match=r"optim.groups: 'haed\.\*' must match .* none; .* are head\.bias"
    ):
        parameter_groups(Model(), optim)


def test_a_pattern_that_matches_only_what_is_not_trained_is_refused() -> None:
    optim = AdamW(Constant(1.0), groups=(Group("frozen.*", lr_scale=0.1),))
    with pytest.raises(RecipeError, match="'frozen.*' must match the name of a trained parameter"):
        parameter_groups(Model(), optim)


def test_a_group_must_set_something_that_can_be() -> None:
    with pytest.raises(ValueError, match="group 'head' must set lr_scale.* but sets nothing"):
        Group("head")
    with pytest.raises(ValueError, match="whole number of steps, but is 2.5"):
        Group("head", freeze_until=2.5)


def test_schedules_write_pure_functions_of_progress() -> None:
    optim = AdamW(
        WarmupCosine(1e-3, warmup=0.1),
        Cosine(0.04, 0.4),
        groups=(Group("head.*", lr_scale=0.1),),
        clip=1.0,
    )
    optimizer = optim.build(parameter_groups(Model(), optim))
    for progress in (0.5, 0.05, 1.0, 0.05):
        optim.apply(optimizer, progress, 0)
        for group in optimizer.param_groups:
            scale = 0.1 if "0.1" in group["name"] else 1.0
            decay = 0.0 if group["name"].startswith("no") else optim.weight_decay(progress)
            assert group["lr"] == optim.lr(progress) * scale
            assert group["weight_decay"] == decay
    assert optim.lr(0.05) == pytest.approx(5e-4)


def test_an_optimizer_starts_at_the_schedules_first_values() -> None:
    optim = AdamW(WarmupCosine(1.0, warmup=0.5), Cosine(0.04, 0.4))
    optimizer = optim.build(parameter_groups(Model(), optim))
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0]
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert decays == pytest.approx([0.0, 0.04])


def test_adamw_follows_its_paper() -> None:
    """Algorithm 2 of arXiv 1711.05101 in float64, with changing schedules."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    start = copy.deepcopy(model)
    optim = AdamW(Cosine(1e-2, 1e-3), Cosine(0.1, 0.4), betas=(0.8, 0.95), eps=1e-6)
    optimizer = optim.build(parameter_groups(model, optim))
    gradients = [[torch.randn_like(p) for p in model.parameters()] for _ in range(5)]
    for step, gradient in enumerate(gradients):
        optim.apply(optimizer, step / 5, step)
        for parameter, value in zip(model.parameters(), gradient, strict=True):
            parameter.grad = value.clone()
        optimizer.step()
    for place, theta in enumerate(value.detach().clone() for value in start.parameters()):
        m, v = torch.zeros_like(theta), torch.zeros_like(theta)
        for step in range(5):
            g, lr = gradients[step][place], optim.lr(step / 5)
            decay = optim.weight_decay(step / 5) if theta.ndim > 1 else 0.0
            m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
            m_hat, v_hat = m / (1 - 0.8 ** (step + 1)), v / (1 - 0.95 ** (step + 1))
            theta = theta - lr * decay * theta - lr * m_hat / (v_hat.sqrt() + 1e-6)
        torch.testing.assert_close(list(model.parameters())[place].data, theta, rtol=1e-9, atol=0)


def test_groups_are_described_in_a_table() -> None:
    optim = AdamW(Constant(1.0), groups=(Group("head.*", lr_scale=0.1),))
    table = describe_groups(parameter_groups(Model(), optim)).splitlines()
    assert table[0].split()[:3] == ["group", "tensors", "numbers"]
    (row,) = [line for line in table if line.startswith("decay, lr x 0.1")]
    assert row.split()[4:] == ["1", "64", "0.1", "x", "1", "head.weight"]
    assert len(table) == 5
