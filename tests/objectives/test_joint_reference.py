"""Losses over crops against naive versions of their papers' formulas, in float64."""

import math

import pytest
import torch
from torch import Tensor

from ssl_scale.heads.moments import global_correlation, global_covariance
from ssl_scale.objectives.barlow_twins import barlow_twins
from ssl_scale.objectives.simsiam import simsiam
from ssl_scale.objectives.vicreg import redundancy, shortfall
from tests.objectives.cases import build
from tests.objectives.steps import PreparedStep, World, make_samples

NUM = 14
Rows = list[list[float]]


def start(name: str) -> tuple[World, PreparedStep, list[int]]:
    """The named case, its step, and which samples have both crops."""
    world = build(name)
    step = world.step(make_samples(NUM))
    return world, step, step.view("crops").present.all(1).nonzero().flatten().tolist()


def check(world: World, step: PreparedStep, count: int, total: float) -> None:
    """The objective's sum and count are the naive ones."""
    assert int(world.objective.count(step)) == count
    found = float(world.objective(step).total.detach())
    assert abs(found - total) < 1e-9 * abs(total)


def unit(x: Tensor) -> Tensor:
    return x / math.sqrt(float((x * x).sum()))


def projected(world: World, step: PreparedStep, rows: list[int]) -> tuple[Rows, Rows]:
    """Each crop's projections, as numbers."""
    pooled = step.student("image", "crops").pooled
    crops = [[world.objective.projector(pooled[i, c]).tolist() for i in rows] for c in (0, 1)]
    return crops[0], crops[1]


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def column(rows: Rows, j: int) -> list[float]:
    """A feature over the batch, less its mean."""
    values = [row[j] for row in rows]
    return [value - mean(values) for value in values]


@torch.no_grad()
def test_simsiam_is_equation_4():
    """1/2 D(p1, z2) + 1/2 D(p2, z1), D the negative cosine."""
    world, step, rows = start("simsiam")
    total = 0.0
    for i in rows:
        crops = step.student("image", "crops").pooled[i]
        z = [world.objective.projector(crop) for crop in crops]
        p = [unit(world.objective.predictor(each)) for each in z]
        total += -float(p[0] @ unit(z[1])) / 2 - float(p[1] @ unit(z[0])) / 2
    check(world, step, len(rows), total)


@torch.no_grad()
def test_vicreg_is_equations_1_to_6():
    """25 s + 25 (v(Z) + v(Z')) + c(Z) + c(Z'), averaging s over features as algorithm 1 does."""
    world, step, rows = start("vicreg")
    sides = projected(world, step, rows)
    n, d = len(rows), len(sides[0][0])
    pairs = [zip(a, b, strict=True) for a, b in zip(*sides, strict=True)]
    invariance = mean([mean([(a - b) ** 2 for a, b in pair]) for pair in pairs])
    varied, covaried = 0.0, 0.0
    for side in sides:
        features = [column(side, j) for j in range(d)]
        for i, left in enumerate(features):
            variance = sum(value**2 for value in left) / (n - 1)
            varied += max(0, 1 - math.sqrt(variance + 1e-4)) / d
            for j, right in enumerate(features):
                if i != j:
                    both = sum(a * b for a, b in zip(left, right, strict=True)) / (n - 1)
                    covaried += both**2 / d
    assert varied > 0.1 and covaried > 1e-4
    check(world, step, n, n * (25 * invariance + 25 * varied + covaried))
    metrics = world.objective(step).metrics
    assert {name: float(total / count) for name, (total, count) in metrics.items()} == {
        "invariance": pytest.approx(invariance, rel=1e-9),
        "variance": pytest.approx(varied, rel=1e-9),
        "covariance": pytest.approx(covaried, rel=1e-9),
    }


@torch.no_grad()
def test_barlow_twins_is_equations_1_and_2():
    """The correlations' squared distance from the identity, 0.005 of it off the diagonal."""
    world, step, rows = start("barlow twins")
    sides = projected(world, step, rows)
    n, d = len(rows), len(sides[0][0])
    total = 0.0
    for i in range(d):
        for j in range(d):
            a, b = column(sides[0], i), column(sides[1], j)
            deviations = [math.sqrt(mean([v**2 for v in side]) + 0.01) for side in (a, b)]
            both = mean([x * y for x, y in zip(a, b, strict=True)])
            correlation = both / (deviations[0] * deviations[1])
            total += (1 - correlation) ** 2 if i == j else 0.005 * correlation**2
    check(world, step, n, n * total)


@pytest.mark.parametrize("view", ["crops", "image"])
@torch.no_grad()
def test_supcon_is_equation_2(view):
    """-1 / |P(i)| sum over p in P(i) of log(exp(z_i z_p / t) / sum over a in A(i) of ...)."""
    world = build("supcon")
    world.objective.view = view
    step = world.step(make_samples(NUM))
    labels = step.batch.fields["label"].tolist()
    pooled = step.student("image", view).pooled
    each = pooled.shape[1]
    rows = [i for i in range(NUM) if step.view(view).present[i].all() and labels[i] >= 0]
    crops = [unit(world.objective.projector(pooled[i, c])) for i in rows for c in range(each)]
    classes = [labels[i] for i in rows for _ in range(each)]
    total, without_match = 0.0, 0
    for i, anchor in enumerate(crops):
        others = [a for a in range(len(crops)) if a != i]
        matches = [p for p in others if classes[p] == classes[i]]
        if not matches:
            without_match += 1
            continue
        similar = {a: float(anchor @ crops[a]) / 0.2 for a in others}
        normal = math.log(sum(map(math.exp, similar.values())))
        total += sum(normal - similar[p] for p in matches) / len(matches) / each
    assert without_match == (0 if view == "crops" else 3)
    check(world, step, len(rows), total)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@torch.no_grad()
def test_sigmoid_contrast_is_the_sum_over_all_pairs_of_siglip():
    """-1 / |B| sum over i and j of log sigmoid(z_ij (t x_i y_j + b))."""
    world = build("sigmoid contrast")
    step = world.step(make_samples(NUM))
    image = step.student("image", "image").pooled[:, 0]
    text = step.student("text", "words").pooled[:, 0]
    both = step.view("image").present[:, 0] & step.view("words").present[:, 0]
    rows = both.nonzero().flatten().tolist()
    heads = world.objective.projectors
    left = [unit(heads["image"](image[i])) for i in rows]
    right = [unit(heads["text"](text[i])) for i in rows]
    numbers = world.objective.scale_and_bias
    scale, bias = math.exp(float(numbers.log_scale)), float(numbers.bias)
    assert (scale, bias) == pytest.approx((10, -2))
    total = 0.0
    for i, x in enumerate(left):
        for j, y in enumerate(right):
            logit = scale * float(x @ y) + bias
            total -= math.log(sigmoid(logit if i == j else -logit))
    check(world, step, len(rows), total)


def contrasted(query: Tensor, candidates: list[Tensor], match: int, temperature: float) -> float:
    """-log softmax of the match."""
    similar = [float(query @ candidate) / temperature for candidate in candidates]
    return math.log(sum(map(math.exp, similar))) - similar[match]


@torch.no_grad()
def test_moco_is_equation_1_over_a_queue_of_former_keys():
    """-log exp(q k+ / t) / (exp(q k+ / t) + sum over the queue of exp(q k / t))."""
    world, step, rows = start("moco")
    queue = list(world.objective.queue.rows)
    assert len(queue) == 9 < len(rows)
    for index in range(3):
        step = world.step(make_samples(NUM))
        step.index = index
        asked = step.student("image", "crops").pooled
        taught = step.teacher("image", "crops").pooled
        q = [unit(world.objective.projector(asked[i, 0])) for i in rows]
        k = [unit(world.taught["projector"](taught[i, 1])) for i in rows]
        losses = [contrasted(a, [b, *queue], 0, 0.2) for a, b in zip(q, k, strict=True)]
        check(world, step, len(rows), sum(losses))
        queue = [*queue, *k][-9:]


@torch.no_grad()
def test_moco_v3_is_algorithm_1():
    """2 t (ctr(q1, k2) + ctr(q2, k1)) among the keys of the batch."""
    world, step, rows = start("moco v3")
    asked = step.student("image", "crops").pooled
    taught = step.teacher("image", "crops").pooled
    heads, total = world.objective, 0.0
    for c in (0, 1):
        q = [unit(heads.predictor(heads.projector(asked[i, c]))) for i in rows]
        k = [unit(world.taught["projector"](taught[i, 1 - c])) for i in rows]
        total += 2 * 0.2 * sum(contrasted(query, k, place, 0.2) for place, query in enumerate(q))
    check(world, step, len(rows), total)


@torch.no_grad()
def test_nnclr_is_algorithm_1():
    """Half of L(NN(z1), p2) + L(NN(z2), p1); the first crops' projections join the support set."""
    world, _, rows = start("nnclr")
    heads, support = world.objective, list(world.objective.support.rows)
    for index in range(3):
        step = world.step(make_samples(NUM))
        step.index = index
        pooled = step.student("image", "crops").pooled
        z = [[heads.projector(pooled[i, c]) for i in rows] for c in (0, 1)]
        p = [[unit(heads.predictor(each)) for each in side] for side in z]
        total = 0.0
        for c in (0, 1):
            for place, each in enumerate(z[c]):
                distances = [float((unit(each) - row).square().sum()) for row in support]
                neighbour = support[distances.index(min(distances))]
                total += contrasted(neighbour, p[1 - c], place, 0.1) / 2
        check(world, step, len(rows), total)
        support = [*support, *(unit(each) for each in z[0])][-9:]


def alone(x: Tensor) -> Tensor:
    return x


def test_simsiam_ranges_from_agreement_to_opposition_and_spares_its_target():
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    torch.testing.assert_close(simsiam(x, x.flip(1)), -torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(simsiam(x, -x.flip(1)), torch.ones(3, dtype=torch.float64))
    target = torch.randn(3, 2, 4, requires_grad=True)
    simsiam(torch.randn(3, 2, 4, requires_grad=True), target).sum().backward()
    assert target.grad is None


def test_a_large_mean_does_not_drown_the_moments():
    x = torch.randn(64, 3) + 5000
    valid = torch.ones(64, dtype=torch.bool)
    covariance, count = global_covariance(x, valid, alone)
    assert count == 64
    torch.testing.assert_close(covariance, torch.cov(x.T.double()).float(), rtol=1e-2, atol=1e-2)


def test_moments_of_rows_are_torchs_and_rows_that_are_not_valid_change_nothing():
    x, y = torch.randn(2, 9, 3, dtype=torch.float64)
    valid = torch.arange(9) % 4 != 1
    poisoned = x.masked_fill(~valid[:, None], torch.nan)
    covariance, _ = global_covariance(poisoned, valid, alone)
    torch.testing.assert_close(covariance, torch.cov(x[valid].T))
    correlation, count = global_correlation(poisoned, y, valid, 1e-12, alone)
    expected = torch.corrcoef(torch.cat([x[valid], y[valid]], 1).T)[:3, 3:]
    torch.testing.assert_close(correlation, expected)
    assert count == 7


def test_collapsed_features_fall_short_and_independent_ones_do_not():
    assert shortfall(torch.zeros(4), 1.0, 1e-4).item() == pytest.approx(0.99)
    assert shortfall(torch.full((4,), 2.0), 1.0, 1e-4) == 0
    assert redundancy(torch.eye(4)) == 0
    assert redundancy(torch.ones(4, 4)).item() == pytest.approx(3)


def test_barlow_twins_of_equal_and_decorrelated_crops_is_zero():
    assert barlow_twins(torch.eye(5), 0.005) == 0
    assert barlow_twins(torch.ones(5, 5), 0.005).item() == pytest.approx(20 * 0.005)
    assert barlow_twins(torch.zeros(5, 5), 0.005).item() == pytest.approx(5)


@pytest.mark.parametrize("name", ["vicreg", "barlow twins"])
def test_a_single_sample_is_refused_in_training_and_has_a_loss_in_validation(name):
    world = build(name)
    step = world.step(make_samples(1))
    with pytest.raises(
        ValueError, match="'crops' must show at least 2 samples of the global batch"
    ):
        world.objective(step)
    world.eval()
    assert world.objective(step).total.isfinite()


@pytest.mark.parametrize("name", ["simsiam", "vicreg", "barlow twins", "moco", "moco v3", "nnclr"])
def test_a_view_without_two_crops_is_refused(name):
    world = build(name)
    world.objective.view = "image"
    with pytest.raises(ValueError, match="view 'image' must have 2 crops, but has 1"):
        world.objective.count(world.step(make_samples(4)))
