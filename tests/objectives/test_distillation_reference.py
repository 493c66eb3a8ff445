"""DINO, iBOT, KoLeo and SwAV against naive versions of their formulas, sample by sample."""

import math

import pytest
import torch
from torch import Tensor

from ssl_scale.objectives.koleo import koleo
from ssl_scale.objectives.multi_crop import across_crops, entropy
from ssl_scale.objectives.swav import SwAV
from ssl_scale.verify.loading import make_world
from tests.heads.test_assignment import naive_sinkhorn
from tests.objectives.cases import build
from tests.objectives.distillation_cases import prototypes
from tests.objectives.steps import WIDTH, PreparedStep, World, make_samples
from tests.objectives.test_reference import NUM, case, check, run, unit

__all__ = ["run"]  # a fixture


def softmax(logits: list[float]) -> list[float]:
    whole = sum(map(math.exp, logits))
    return [math.exp(logit) / whole for logit in logits]


def cross_entropy(target: list[float], student: list[float]) -> float:
    return -sum(t * math.log(s) for t, s in zip(target, student, strict=True))


def there(step: PreparedStep, view: str) -> list[int]:
    return [i for i in range(NUM) if step.view(view).present[i].all()]


def student_scores(world: World, pooled: Tensor) -> list[list[float]]:
    return [world.objective.head(row).tolist() for row in pooled]


def dino_loss(targets: list[list[float]], students: list[list[float]]) -> float:
    """Equation 3 of DINO over its number of pairs; the first two students are the global crops."""
    pairs = [(g, v) for g in (0, 1) for v in range(len(students)) if v != g]
    return sum(cross_entropy(targets[g], students[v]) for g, v in pairs) / len(pairs)


@case("dino")
@torch.no_grad()
def test_dino_is_equation_3_with_a_centred_teacher(run):
    """The centre is the mean of the step before; tau_s = 0.1, tau_t = 0.04 at the start."""
    world, step = run
    world.objective(step)
    rows, centre = there(step, "crops"), [0.0] * 9
    scores = [world.taught["head"](step.teacher("image", "crops").pooled[i]) for i in rows]
    for k in range(9):
        centre[k] = 0.1 * sum(float(each[g, k]) for each in scores for g in (0, 1)) / 2 / len(rows)
    step.index = 1
    losses = []
    for i, each in zip(rows, scores, strict=True):
        targets = [
            softmax([(v - c) / 0.04 for v, c in zip(crop, centre, strict=True)])
            for crop in each.tolist()
        ]
        both = [step.student("image", view).pooled[i] for view in ("crops", "local")]
        seen = student_scores(world, torch.cat(both))
        losses.append(dino_loss(targets, [softmax([v / 0.1 for v in crop]) for crop in seen]))
    assert len(seen) == 5
    check(world, step, losses)


@case("dino, masked, sinkhorn")
@torch.no_grad()
def test_dinov2_sees_masked_global_crops_and_assigns_all_of_them_together(run):
    world, step = run
    rows = there(step, "crops")
    taught = [step.teacher("image", "crops").pooled[i] for i in rows]
    scores = [crop.tolist() for each in taught for crop in world.taught["head"](each)]
    targets = naive_sinkhorn(scores, 0.04, 3)
    losses = []
    for number, i in enumerate(rows):
        masked = step.student("image", "crops", mask="blocks").pooled[i]
        seen = student_scores(world, torch.cat([masked, step.student("image", "local").pooled[i]]))
        students = [softmax([v / 0.1 for v in crop]) for crop in seen]
        losses.append(dino_loss(targets[2 * number : 2 * number + 2], students))
    check(world, step, losses)


@case("swav")
@torch.no_grad()
def test_swav_is_equation_6_with_codes_of_each_global_crop(run):
    world, step = run
    rows, scores = there(step, "crops"), []
    for i in rows:
        both = [step.student("image", view).pooled[i] for view in ("crops", "local")]
        scores.append(student_scores(world, torch.cat(both)))
    codes = [naive_sinkhorn([each[g] for each in scores], 0.05, 3) for g in (0, 1)]
    losses = []
    for number, each in enumerate(scores):
        students = [softmax([v / 0.1 for v in crop]) for crop in each]
        losses.append(dino_loss([codes[0][number], codes[1][number]], students))
    check(world, step, losses)


@case("swav, queue")
@torch.no_grad()
def test_swav_shares_the_prototypes_out_among_the_queue_too(run):
    """Section 3.1, "Working with small batches": former rows count, but have no loss."""
    world, step = run
    old = world.objective.queue.rows.clone()
    assert len(old) == 24
    rows, scores = there(step, "crops"), []
    for i in rows:
        both = [step.student("image", view).pooled[i] for view in ("crops", "local")]
        scores.append(student_scores(world, torch.cat(both)))
    compare = world.objective.head.prototypes
    codes = [
        naive_sinkhorn([each[g] for each in scores] + compare(old[:, part]).tolist(), 0.05, 3)
        for g, part in ((0, slice(0, 5)), (1, slice(5, 10)))
    ]
    losses = []
    for number, each in enumerate(scores):
        students = [softmax([v / 0.1 for v in crop]) for crop in each]
        losses.append(dino_loss([codes[0][number], codes[1][number]], students))
    check(world, step, losses)


def test_swavs_queue_takes_both_crops_in_and_waits_for_its_time():
    world = make_world(
        lambda: SwAV("image", prototypes(), "crops", queue=3, queue_from=0.5, width=WIDTH)
    )
    objective, samples = world.objective, make_samples(NUM)
    early = [objective(world.step(samples)).total for _ in range(2)]
    assert early[0] == early[1], "a queue that waits changes nothing"
    step = world.step(samples)
    newest = torch.tensor(there(step, "crops"))
    newest = newest[step.batch.seeds[newest].argsort()][-3:]
    pooled = step.student("image", "crops").pooled[newest]
    rows = objective.head.embed(pooled).flatten(1)
    # Three at a time: the newest of a batch fill the queue, in some order.
    assert (torch.cdist(objective.queue.rows, rows).amin(0) < 1e-6).all()
    step.progress = 0.5
    assert objective(step).total != early[0]


def test_the_start_of_a_queue_needs_a_queue():
    with pytest.raises(ValueError, match="queue must be positive with queue_from 0.5, but is 0"):
        SwAV("image", prototypes(), "crops", queue_from=0.5, width=WIDTH)


@torch.no_grad()
def ibot_losses(world: World, step: PreparedStep, targets: list[list[float]]) -> list[float]:
    """Equation 2 of iBOT, averaged over a crop's hidden tokens; a crop without any adds 0."""
    hidden = step.mask("blocks")["crops"].hidden
    losses, used = [], 0
    for i in there(step, "crops"):
        for crop in (0, 1):
            tokens = step.student("image", "crops", mask="blocks").tokens[i, crop]
            places = hidden[i, crop].nonzero().flatten().tolist()
            each = []
            for place in places:
                logits = world.objective.head(tokens[place]).tolist()
                each.append(cross_entropy(targets[used], softmax([v / 0.1 for v in logits])))
                used += 1
            losses.append(sum(each) / max(len(each), 1))
    assert used == len(targets)
    assert min(losses) == 0 < max(losses)
    return losses


def ibot_scores(world: World, step: PreparedStep) -> list[list[float]]:
    hidden = step.mask("blocks")["crops"].hidden & step.view("crops").present[..., None]
    return world.taught["head"](step.teacher("image", "crops").tokens[hidden]).tolist()


@case("ibot")
@torch.no_grad()
def test_ibot_is_equation_2_with_a_centred_teacher(run):
    world, step = run
    world.objective(step)
    scores = ibot_scores(world, step)
    centre = [0.1 * sum(row[k] for row in scores) / len(scores) for k in range(9)]
    targets = [
        softmax([(v - c) / 0.05 for v, c in zip(row, centre, strict=True)]) for row in scores
    ]
    step.index = 1
    check(world, step, ibot_losses(world, step, targets))


@case("ibot, sinkhorn")
@torch.no_grad()
def test_ibot_of_dinov2_assigns_all_hidden_tokens_together(run):
    world, step = run
    targets = naive_sinkhorn(ibot_scores(world, step), 0.05, 3)
    check(world, step, ibot_losses(world, step, targets))


@case("koleo")
@torch.no_grad()
def test_koleo_is_the_logarithm_of_the_nearest_distance_in_each_crop(run):
    """-log(min over j of |x_i - x_j| + 1e-8) among the crops of one number."""
    world, step = run
    pooled = step.student("image", "crops").pooled
    rows = there(step, "crops")
    losses = []
    for i in rows:
        total = 0.0
        for crop in (0, 1):
            x = {j: unit(pooled[j, crop]) for j in rows}
            away = [math.dist(x[i].tolist(), x[j].tolist()) for j in rows if j != i]
            total -= math.log(min(away) + 1e-8)
        losses.append(total)
    check(world, step, losses)


def test_agreement_costs_the_entropy_of_the_targets():
    targets = torch.rand(3, 1, 5, dtype=torch.float64).softmax(-1).expand(-1, 2, -1)
    losses = across_crops(targets, targets[:, :1].expand(-1, 6, -1).log())
    total, count = entropy(targets, torch.ones(3, 2, dtype=torch.bool))
    torch.testing.assert_close(losses.sum() * 2, total)
    assert count == 6


def test_targets_that_are_certain_have_no_entropy():
    targets = torch.eye(4)
    assert entropy(targets, torch.ones(4, dtype=torch.bool))[0] == 0


@pytest.mark.parametrize("name", ["dino", "swav"])
def test_a_global_view_without_two_crops_is_refused(name):
    world = build(name)
    step = world.step(make_samples(4))
    step.views["crops"] = step.views["image"]
    with pytest.raises(ValueError, match="view 'crops' must have 2 crops, but has 1"):
        world.objective.count(step)


@pytest.mark.parametrize("name", ["dino", "swav"])
def test_a_sample_without_local_crops_counts_nowhere(name):
    world, samples = build(name), make_samples(NUM)
    step = world.step(samples)
    local = step.views["local"]
    lacking = torch.arange(NUM) == 5
    gone = torch.where(lacking.view(-1, 1, 1, 1, 1), torch.nan, local.values)
    step.views["local"] = local.but(values=gone, valid=local.valid & ~lacking[:, None, None])
    rest = world.step(samples.pick([i for i in range(NUM) if i != 5]))
    assert world.objective.count(step) == world.objective.count(rest)
    expected = build(name).objective(rest).total
    torch.testing.assert_close(world.objective(step).total, expected)


@pytest.mark.parametrize("name", ["dino", "ibot", "swav"])
def test_prototypes_are_frozen_as_long_as_told(name):
    world = build(name)
    world.objective.frozen_until = 0.5
    for progress, moves in ((0.49, False), (0.5, True)):
        step = world.step(make_samples(NUM))
        step.progress = progress
        world.objective(step).total.backward()
        assert (world.objective.head.prototypes.weight.grad is not None) == moves


def test_the_teacher_grows_softer_by_its_schedule():
    world = build("dino")
    entropies = []
    for progress in (0.0, 1.0):
        step = world.step(make_samples(NUM))
        step.progress = progress
        total, count = world.objective(step).metrics["target_entropy"]
        entropies.append(float(total / count))
    assert entropies[0] < entropies[1] < math.log(9)


def test_koleo_refuses_to_train_on_a_single_sample_and_evaluates_it_to_zero():
    world = build("koleo")
    alone = world.step(make_samples(NUM).pick([0]))
    with pytest.raises(ValueError, match="must show at least 2 samples of the global batch"):
        world.objective(alone)
    world.eval()
    assert world.objective(alone).total == 0


def test_koleo_has_a_finite_gradient_where_samples_coincide():
    x = torch.nn.functional.normalize(torch.randn(3, 1, 4), dim=-1)
    x = x[[0, 0, 1, 2]].requires_grad_()
    losses, distances = koleo(x, x, torch.ones(4, dtype=torch.bool), 0)
    losses.sum().backward()
    assert losses[0].item() == pytest.approx(-math.log(1e-8), rel=1e-5)
    assert distances[0] == 0
    assert x.grad.isfinite().all()


def test_koleo_pushes_both_neighbours():
    local = torch.nn.functional.normalize(torch.randn(2, 1, 4), dim=-1)
    everyone = torch.cat([local, -local]).requires_grad_()
    losses, _ = koleo(local, everyone, torch.tensor([True, True, False, False]), 0)
    losses[:1].sum().backward()
    assert everyone.grad[1].any() and not everyone.grad[2:].any()
