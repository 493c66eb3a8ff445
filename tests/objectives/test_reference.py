"""Each objective against a naive version of its paper's formula, in float64, sample by sample."""

import math

import pytest
import torch
from torch import Tensor

from ssl_scale.errors import RecipeError
from ssl_scale.objectives.byol import byol
from ssl_scale.objectives.cross_entropy import CrossEntropy
from ssl_scale.objectives.infonce import info_nce
from ssl_scale.objectives.masked_pixels import cut_patches, normalize_patches
from ssl_scale.objectives.masked_tokens import masked_tokens
from ssl_scale.objectives.ntxent import nt_xent
from ssl_scale.objectives.pseudo_label import pseudo_label
from tests.objectives.cases import build
from tests.objectives.steps import GRID, PreparedStep, World, make_samples

NUM = 14


@pytest.fixture
def run(request) -> tuple[World, PreparedStep]:
    world = build(request.param)
    return world, world.step(make_samples(NUM))


def case(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("run", [name], indirect=True)


def check(world: World, step: PreparedStep, losses: list[float]) -> None:
    """The objective's sum and count are those of the naive items."""
    assert world.objective.count(step) == len(losses)
    total = float(world.objective(step).total.detach())
    assert abs(total - sum(losses)) < 1e-9 * abs(sum(losses))


def softmax(logits: list[float]) -> list[float]:
    whole = sum(math.exp(logit) for logit in logits)
    return [math.exp(logit) / whole for logit in logits]


def unit(x: Tensor) -> Tensor:
    return x / math.sqrt(float((x * x).sum()))


@case("ntxent")
@torch.no_grad()
def test_ntxent_is_equation_1_of_simclr(run):
    """l(i, j) = -log exp(sim(z_i, z_j) / t) / sum over k != i of exp(sim(z_i, z_k) / t)."""
    world, step = run
    pooled = step.student("image", "crops").pooled
    present = [i for i in range(NUM) if step.view("crops").present[i].all()]
    crops = [unit(world.objective.projector(pooled[i, c])) for i in present for c in (0, 1)]

    def loss(i: int, j: int) -> float:
        similar = [math.exp(float(crops[i] @ crop) / 0.2) for crop in crops]
        return -math.log(similar[j] / (sum(similar) - similar[i]))

    places = range(0, len(crops), 2)
    check(world, step, [(loss(p, p + 1) + loss(p + 1, p)) / 2 for p in places])


@case("infonce")
@torch.no_grad()
def test_infonce_is_figure_3_of_clip(run):
    """Cross-entropy of exp(t) I T^T along both axes, averaged."""
    world, step = run
    image = step.student("image", "image").pooled[:, 0]
    text = step.student("text", "words").pooled[:, 0]
    both = step.view("image").present[:, 0] & step.view("words").present[:, 0]
    rows = both.nonzero().flatten().tolist()
    heads = world.objective.projectors
    left = [unit(heads["image"](image[i])) for i in rows]
    right = [unit(heads["text"](text[i])) for i in rows]
    scale = math.exp(float(world.objective.temperature.log_scale))
    assert scale == pytest.approx(1 / 0.07)
    logits = [[scale * float(a @ b) for b in right] for a in left]
    losses = []
    for i in range(len(rows)):
        there = math.log(sum(math.exp(logits[i][k]) for k in range(len(rows))))
        back = math.log(sum(math.exp(logits[k][i]) for k in range(len(rows))))
        losses.append((there + back) / 2 - logits[i][i])
    check(world, step, losses)


@case("byol")
@torch.no_grad()
def test_byol_is_equation_2_made_symmetric(run):
    """|| q(z) / |q(z)| - z' / |z'| ||^2 of crop 1 against crop 2, and of 2 against 1."""
    world, step = run
    losses = []
    for i in range(NUM):
        if not step.view("crops").present[i].all():
            continue
        online = step.student("image", "crops").pooled[i]
        target = step.teacher("image", "crops").pooled[i]
        q = [unit(world.objective.predictor(world.objective.projector(crop))) for crop in online]
        z = [unit(world.taught["projector"](crop)) for crop in target]
        losses.append(sum(float((q[a] - z[b]).square().sum()) for a, b in ((0, 1), (1, 0))))
    check(world, step, losses)


@pytest.mark.parametrize("run", ["pseudo-label", "pseudo-label, teacher"], indirect=True)
@torch.no_grad()
def test_pseudo_label_is_equation_4_of_fixmatch(run):
    """1(max q >= tau) H(argmax q, p) of each crop; q is the mean of those guessed from."""
    world, step = run
    objective, view = world.objective, world.objective.guess_view
    ask, heads = (step.teacher, world.taught) if objective.teacher else (step.student, world.heads)
    losses, sure = [], 0
    for i in step.view("crops").present.all(1).nonzero().flatten().tolist():
        guesses = ask("image", view).pooled[i]
        each = [softmax(heads["classifier"](crop).tolist()) for crop in guesses]
        q = [sum(p) / len(each) for p in zip(*each, strict=True)]
        crops = step.student("image", "crops").pooled[i]
        said = [softmax(world.heads["classifier"](crop).tolist()) for crop in crops]
        loss = sum(-math.log(p[q.index(max(q))]) for p in said) / len(said)
        losses.append(loss if max(q) >= objective.threshold else 0.0)
        sure += max(q) >= objective.threshold
    assert 0 < sure < len(losses)
    check(world, step, losses)


@case("masked pixels")
@torch.no_grad()
def test_masked_pixels_is_the_mean_squared_error_of_hidden_normalised_patches(run):
    world, step = run
    predicted = world.objective.predict(step)
    hidden = step.mask("patches")["image"].hidden
    losses = []
    for i in range(NUM):
        for place in range(GRID[0] * GRID[1]):
            if not (hidden[i, 0, place] and step.view("image").present[i, 0]):
                continue
            row, column = 2 * (place // GRID[1]), 2 * (place % GRID[1])
            patch = step.view("image").values[i, 0, :, row : row + 2, column : column + 2]
            values = patch.flatten().tolist()
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
            wanted = [(v - mean) / math.sqrt(variance + 1e-6) for v in values]
            said = predicted[i, 0, place].tolist()
            errors = [(a - b) ** 2 for a, b in zip(said, wanted, strict=True)]
            losses.append(sum(errors) / len(errors))
    check(world, step, losses)


@case("masked tokens")
@torch.no_grad()
def test_masked_tokens_is_the_log_likelihood_of_hidden_words(run):
    world, step = run
    tokens = step.student("text", "words", mask="words").tokens
    hidden = step.mask("words")["words"].hidden
    losses = []
    for i, _, place in hidden.nonzero().tolist():
        logits = world.objective.head(tokens[i, 0, place]).tolist()
        truth = logits[int(step.view("words").values[i, 0, place])]
        losses.append(math.log(sum(map(math.exp, logits))) - truth)
    check(world, step, losses)


@case("cross entropy")
@torch.no_grad()
def test_cross_entropy_spreads_a_tenth_over_all_classes(run):
    world, step = run
    pooled = step.student("image", "crops").pooled
    losses = []
    for i, label in enumerate(step.batch.fields["label"].tolist()):
        if label < 0 or not step.view("crops").present[i].any():
            continue
        each = []
        for crop in pooled[i]:
            logits = world.objective.head(crop).tolist()
            normal = math.log(sum(map(math.exp, logits)))
            target = [0.1 / len(logits) + 0.9 * (k == label) for k in range(len(logits))]
            each.append(sum(t * (normal - v) for t, v in zip(target, logits, strict=True)))
        losses.append(sum(each) / 2)
    check(world, step, losses)


@case("binary cross entropy")
@torch.no_grad()
def test_binary_cross_entropy_asks_each_known_class(run):
    world, step = run
    pooled = step.student("image", "crops").pooled
    losses = []
    for i, tags in enumerate(step.batch.fields["tags"].tolist()):
        if not step.view("crops").present[i].any():
            continue
        logits = [world.objective.head(crop).tolist() for crop in pooled[i]]
        for k, tag in enumerate(tags):
            if tag >= 0:
                chances = [1 / (1 + math.exp(-crop[k])) for crop in logits]
                each = [-math.log(p if tag else 1 - p) for p in chances]
                losses.append(sum(each) / 2)
    check(world, step, losses)


def perfect(num: int) -> tuple[Tensor, Tensor]:
    return torch.eye(num, dtype=torch.float64), torch.ones(num, dtype=torch.bool)


def test_contrast_of_perfect_pairs_ends_at_its_lower_bound():
    features, present = perfect(4)
    crops = features[:, None].expand(-1, 2, -1)
    losses, hits = nt_xent(crops, crops, present, 0, temperature=0.1)
    # One match at similarity 1, six others at 0.
    torch.testing.assert_close(losses, torch.full_like(losses, math.log1p(6 * math.exp(-10))))
    assert hits.eq(1).all()


def test_contrast_of_collapsed_features_is_the_logarithm_of_the_candidates():
    collapsed = torch.ones(5, 3, dtype=torch.float64) / math.sqrt(3)
    present, scale = torch.ones(5, dtype=torch.bool), torch.tensor(10.0)
    both = (collapsed, collapsed)
    losses, _ = info_nce(both, both, present, 0, scale.double())
    torch.testing.assert_close(losses, torch.full_like(losses, math.log(5)))


def test_byol_lies_between_agreement_and_opposition():
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    torch.testing.assert_close(byol(x, x.flip(1)), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(byol(x, -x.flip(1)), torch.full((3,), 8, dtype=torch.float64))


def test_byol_sends_no_gradient_to_its_target():
    x = torch.randn(3, 2, 4, requires_grad=True)
    byol(torch.randn(3, 2, 4, requires_grad=True), x).sum().backward()
    assert x.grad is None


def test_ignorant_token_logits_cost_the_logarithm_of_the_vocabulary():
    total = masked_tokens(torch.zeros(6, 11), torch.arange(6))
    assert total.item() == pytest.approx(6 * math.log(11))


def test_patches_are_cut_row_by_row_and_normalised_to_zero_mean_and_unit_deviation():
    picture = torch.arange(24, dtype=torch.float64).view(1, 1, 1, 4, 6)
    patches = cut_patches(picture, 2, 3)
    assert patches[0, 0, 1].tolist() == [2, 3, 8, 9]
    assert patches[0, 0, 3].tolist() == [12, 13, 18, 19]
    normal = normalize_patches(patches)
    torch.testing.assert_close(normal.mean(-1), torch.zeros(1, 1, 6, dtype=torch.float64))
    torch.testing.assert_close(normal.std(-1), torch.ones(1, 1, 6, dtype=torch.float64))


@pytest.mark.parametrize("name", ["ntxent", "byol"])
def test_a_view_without_two_crops_is_refused(name):
    world = build(name)
    world.objective.view = "image"
    with pytest.raises(ValueError, match="view 'image' must have 2 crops, but has 1"):
        world.objective.count(world.step(make_samples(4)))


def test_an_unsure_guess_teaches_nothing():
    logits = torch.randn(2, 1, 3, requires_grad=True)
    there = torch.ones(2, 1, dtype=torch.bool)
    guesses = torch.tensor([[[0.0, 9, 0]], [[0, 0.1, 0]]])
    losses, sure = pseudo_label(logits, guesses, there, there, threshold=0.9)
    losses.sum().backward()
    assert sure.tolist() == [True, False]
    assert logits.grad is not None
    assert logits.grad[0].any()
    assert not logits.grad[1].any()


def test_a_shared_head_must_have_the_fields_classes():
    head = CrossEntropy("image", "label", "crops", head="classifier", width=8, classes={"label": 4})
    world = build("cross entropy, shared head")
    world.objective = head
    with pytest.raises(RecipeError, match="must have the 4 classes of field 'label', but has 5"):
        head(world.step(make_samples(NUM)))
