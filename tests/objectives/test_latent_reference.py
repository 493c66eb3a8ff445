"""data2vec and I-JEPA against naive versions of their formulas, token by token."""

import math

import pytest
import torch
from torch import Tensor

from ssl_scale import dist
from ssl_scale.objectives.latent import normalize_targets, regression
from tests.distributed import run_ranks
from tests.objectives.cases import build
from tests.objectives.distillation_cases import data2vec
from tests.objectives.steps import WIDTH, PreparedStep, World, make_samples
from tests.objectives.test_reference import NUM, case, check, run

__all__ = ["run"]  # a fixture

Rows = dict[tuple[int, int, int], list[float]]


def real(step: PreparedStep, tokens: Tensor) -> Rows:
    """(sample, crop, place) -> features of every token that exists."""
    present = step.view("crops").present
    return {
        (i, crop, place): tokens[i, crop, place].tolist()
        for i, crop in present.nonzero().tolist()
        for place in range(tokens.shape[2])
    }


def layer_norm(x: list[float]) -> list[float]:
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    return [(v - mean) / math.sqrt(variance + 1e-5) for v in x]


def over_the_batch(rows: Rows) -> Rows:
    """Each feature at each place, over all samples and crops."""
    out = {key: list(row) for key, row in rows.items()}
    for place in {key[2] for key in rows}:
        same = [key for key in rows if key[2] == place]
        for k in range(WIDTH):
            values = [rows[key][k] for key in same]
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / len(values)
            for key in same:
                out[key][k] = (rows[key][k] - mean) / math.sqrt(variance + 1e-6)
    return out


def smooth(said: list[float], wanted: list[float], beta: float) -> float:
    """Equation 1 of data2vec, averaged over features."""
    errors = [abs(a - b) for a, b in zip(said, wanted, strict=True)]
    each = [e**2 / beta / 2 if e <= beta else e - beta / 2 for e in errors]
    return sum(each) / len(each)


def square(said: list[float], wanted: list[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(said, wanted, strict=True)) / len(said)


def data2vec_pairs(
    world: World, step: PreparedStep, layers: list[Rows]
) -> list[tuple[list[float], list[float]]]:
    """What the student says of each hidden token, and the mean of the teacher's layers."""
    hidden = step.mask("blocks")["crops"].hidden
    tokens = step.student("image", "crops", mask="blocks").tokens
    pairs = []
    for key in layers[0]:
        if hidden[key]:
            wanted = [sum(v) / len(v) for v in zip(*(rows[key] for rows in layers), strict=True)]
            pairs.append((world.objective.predictor(tokens[key]).tolist(), wanted))
    return pairs


def teacher_layers(step: PreparedStep) -> list[Rows]:
    kept = step.teacher("image", "crops").kept
    return [real(step, kept[name]) for name in ("layer.0", "layer.1")]


@case("data2vec")
@torch.no_grad()
def test_data2vec_is_equation_1_at_the_mean_of_normalised_layers(run):
    world, step = run
    layers = [{key: layer_norm(row) for key, row in rows.items()} for rows in teacher_layers(step)]
    pairs = data2vec_pairs(world, step, layers)
    check(world, step, [smooth(said, wanted, beta=2.0) for said, wanted in pairs])


@case("data2vec, over the batch")
@torch.no_grad()
def test_data2vec_over_the_batch_standardises_each_place_and_feature_of_each_layer(run):
    world, step = run
    layers = [over_the_batch(rows) for rows in teacher_layers(step)]
    check(world, step, [square(*pair) for pair in data2vec_pairs(world, step, layers)])


def ijepa_pairs(
    world: World, step: PreparedStep, wanted: Rows
) -> list[tuple[list[float], list[float]]]:
    """Each target set is predicted by itself, from its own crop's context alone."""
    targets = step.mask("targets")["crops"].targets
    seen, pairs = step.student("image", "crops", mask="targets"), []
    for i, crop in step.view("crops").present.nonzero().tolist():
        real_tokens = seen.valid[i, crop]
        for chosen in targets[i, crop]:
            said = world.objective.predictor(
                seen.tokens[i, crop][real_tokens][None, None],
                seen.origin[i, crop][real_tokens][None, None],
                real_tokens[real_tokens][None, None],
                chosen[None, None, None],
                (2, 3),
            )
            places = chosen.nonzero().flatten().tolist()
            pairs += [
                (row, wanted[i, crop, place])
                for row, place in zip(said.tolist(), places, strict=True)
            ]
    return pairs


@case("ijepa")
@torch.no_grad()
def test_ijepa_is_the_smooth_error_of_layer_normed_features_in_every_target_set(run):
    world, step = run
    rows = real(step, step.teacher("image", "crops").tokens)
    wanted = {key: layer_norm(row) for key, row in rows.items()}
    pairs = ijepa_pairs(world, step, wanted)
    check(world, step, [smooth(said, true, beta=1.0) for said, true in pairs])


@case("ijepa, over the batch")
@torch.no_grad()
def test_ijepa_over_the_batch_standardises_each_place_and_feature(run):
    world, step = run
    wanted = over_the_batch(real(step, step.teacher("image", "crops").tokens))
    check(world, step, [square(*pair) for pair in ijepa_pairs(world, step, wanted)])


def test_without_a_norm_targets_are_the_features():
    step = build("ijepa").step(make_samples(4))
    tokens, valid = torch.randn(4, 2, 6, WIDTH), torch.ones(4, 2, 6, dtype=torch.bool)
    assert torch.equal(normalize_targets(step, tokens, valid, "none"), tokens)


def test_over_the_batch_what_all_samples_share_is_gone():
    step = build("ijepa").step(make_samples(4))
    valid = torch.ones(4, 2, 6, dtype=torch.bool)
    shared = torch.randn(1, 1, 6, WIDTH).expand(4, 2, -1, -1)
    assert normalize_targets(step, shared, valid, "batch").abs().max() < 1e-3
    assert normalize_targets(step, shared, valid, "layer").abs().max() > 1


def test_the_smooth_error_meets_its_line_at_beta():
    zero = torch.zeros(3, 1)
    losses = regression(torch.tensor([[1.0], [2.0], [4.0]]), zero, 2.0)
    assert losses.tolist() == [0.25, 1.0, 3.0]
    assert regression(torch.tensor([[4.0]]), zero[:1], None).tolist() == [16.0]


def test_data2vec_asks_the_encoder_for_its_top_layers():
    assert data2vec("layer", depth=5).reads == {"image": ("layer.3", "layer.4")}
    with pytest.raises(ValueError, match="top must be at most the encoder's 1 layers, but is 2"):
        data2vec("layer", depth=1)


@pytest.mark.parametrize("name", ["data2vec", "ijepa"])
def test_no_gradient_reaches_the_teacher(name):
    world = build(name)
    world.taught.requires_grad_(True)
    world.objective(world.step(make_samples(NUM))).total.backward()
    assert all(parameter.grad is None for parameter in world.taught.parameters())


def padded_tokens(num: int) -> tuple[Tensor, Tensor]:
    """Three sequences of 3, 5 and 2 tokens; what is behind them is NaN."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(3, 1, 5, WIDTH, generator=generator, dtype=torch.float64)
    valid = (torch.arange(5) < torch.tensor([3, 5, 2])[:, None])[:, None]
    return tokens.masked_fill(~valid[..., None], torch.nan)[:, :, :num], valid[:, :, :num]


def normalized_rows(rows: list[list[int]]) -> Tensor:
    mine = rows[dist.rank()]
    num = max((3, 5, 2)[row] for row in mine)
    tokens, valid = padded_tokens(num)
    step = build("ijepa").step(make_samples(2))
    return normalize_targets(step, tokens[mine], valid[mine], "batch")


@pytest.mark.dist
def test_ranks_may_pad_their_sequences_differently():
    step = build("ijepa").step(make_samples(2))
    whole = normalize_targets(step, *padded_tokens(5), "batch")
    first, second = run_ranks(normalized_rows, 2, [[0, 2], [1]])
    torch.testing.assert_close(first, whole[[0, 2], :, :3])
    torch.testing.assert_close(second, whole[1:2])
