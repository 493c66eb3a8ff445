import copy

import pytest
import torch
from torch import Tensor

from ssl_scale.objectives.objective import Objective
from tests.objectives.cases import CASES, SEPARABLE, build, train_step
from tests.objectives.steps import World, make_samples

NUM = 12
ALL = list(range(NUM))
each_case = pytest.mark.parametrize("name", CASES)


def gradients(world: World) -> dict[str, Tensor | None]:
    return {path: p.grad for path, p in world.named_parameters() if p.requires_grad}


def reads(world: World) -> set[str]:
    """The parameters that this objective's loss depends on."""
    step = world.step(make_samples(NUM))
    world.objective(step).total.backward()
    found = {path for path, gradient in gradients(world).items() if gradient is not None}
    world.zero_grad()
    return found


@each_case
def test_loss_is_finite_and_its_gradient_reaches_head_and_encoder(name):
    world = build(name)
    loss = world.objective(world.step(make_samples(NUM)))
    loss.total.backward()
    assert loss.total.shape == ()
    assert loss.total != 0
    reached = {path for path, gradient in gradients(world).items() if gradient is not None}
    heads = {path for path, _ in world.named_parameters() if path.startswith("objective.")}
    assert heads <= reached
    assert any(path.startswith("encoders.") for path in reached)
    assert all(bool(gradients(world)[path].isfinite().all()) for path in reached)
    moved = [path for path in heads if gradients(world)[path].any()]
    # The query and key of one visible place are the only ones that may have nothing to say.
    assert len(moved) >= len(heads) - 1


@each_case
def test_metrics_are_sums_and_counts(name):
    world = build(name)
    for total, count in world.objective(world.step(make_samples(NUM))).metrics.values():
        assert total.shape == count.shape == ()
        assert not total.requires_grad
        assert count > 0


@each_case
def test_the_count_is_known_before_any_encoder_runs(name):
    world = build(name)
    step = world.step(make_samples(NUM))
    assert world.objective.count(step) > 0
    assert not step.memo


@each_case
def test_the_order_of_samples_changes_nothing(name):
    there = train_step(name, make_samples(NUM), [ALL])
    back = train_step(name, make_samples(NUM), [ALL[::-1]])
    torch.testing.assert_close(there.value, back.value, rtol=1e-12, atol=0)


@each_case
def test_a_batch_of_two_works(name):
    outcome = train_step(name, make_samples(NUM), [[0, 5]])
    assert outcome.value != 0
    assert outcome.value.isfinite()


@each_case
def test_half_precision_gives_a_full_precision_loss_near_the_true_one(name):
    losses = []
    for dtype in (torch.float64, torch.bfloat16):
        world = build(name, dtype)
        loss = world.objective(world.step(make_samples(NUM, dtype)))
        loss.total.backward()
        losses.append(loss.total.detach())
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(losses[1].double(), losses[0], rtol=0.05, atol=0)


@each_case
def test_state_goes_round(name):
    world, other = build(name), build(name)
    for parameter in other.parameters():
        parameter.data.add_(1.0)
    step = make_samples(NUM)
    world.objective(world.step(step))
    other.load_state_dict(copy.deepcopy(world.state_dict()))
    world.eval(), other.eval()
    with torch.no_grad():
        expected = world.objective(world.step(step)).total
        assert torch.equal(other.objective(other.step(step)).total, expected)


@each_case
def test_absent_samples_add_exactly_nothing(name):
    """Their values and features are NaN: one that leaks shows."""
    samples = make_samples(40)
    present = samples.has_image & (samples.lengths > 0)
    if "entropy" in name or "supcon" in name:
        present = present & (samples.label >= 0)
        samples.tags[~present] = -1
    kept = present.nonzero().flatten().tolist()[:8]
    if name == "masked tokens":
        absent = (samples.lengths == 0).nonzero().flatten().tolist()
    else:
        absent = (~samples.has_image).nonzero().flatten().tolist()
    with_absent = sorted(kept + absent[:5])
    alone, together = (train_step(name, samples, [rows]) for rows in (kept, with_absent))
    assert alone.value != 0
    torch.testing.assert_close(alone.value, together.value, rtol=1e-14, atol=1e-15)
    for path, gradient in alone.gradients.items():
        torch.testing.assert_close(together.gradients[path], gradient, rtol=1e-12, atol=1e-14)


@each_case
def test_without_items_the_loss_is_zero_and_every_gradient_is_there_and_zero(name):
    world, samples = build(name), make_samples(NUM)
    reached = reads(world)
    nothing = copy.deepcopy(samples)
    nothing.has_image[:] = False
    nothing.crops[:], nothing.image[:] = torch.nan, torch.nan
    nothing.lengths[:] = 0
    step = world.step(nothing)
    loss = world.objective(step)
    assert world.objective.count(step) == 0
    assert loss.total == 0
    loss.total.backward()
    # The same parameters take part on every rank, whatever it holds; else buckets mix them up.
    assert {p for p, gradient in gradients(world).items() if gradient is not None} == reached
    assert all(not gradients(world)[path].any() for path in reached)


@each_case
def test_objectives_own_no_parameter_directly(name):
    """ZeRO-3 gathers the parameters of modules from tensors to tensors only."""
    objective = build(name).objective
    assert isinstance(objective, Objective)
    assert not list(objective.parameters(recurse=False))


@pytest.mark.parametrize("name", SEPARABLE)
def test_unequal_micro_batches_equal_one_batch(name):
    assert not CASES[name]().pairs
    whole = train_step(name, make_samples(NUM), [ALL])
    parts = train_step(name, make_samples(NUM), [ALL[:5], ALL[5:]])
    torch.testing.assert_close(parts.value, whole.value, rtol=1e-12, atol=0)
    for path, gradient in whole.gradients.items():
        torch.testing.assert_close(parts.gradients[path], gradient, rtol=1e-10, atol=1e-15)


def test_the_cases_cover_every_objective():
    def leaves(part: type) -> set[type]:
        below = part.__subclasses__()
        return set().union(*map(leaves, below)) if below else {part}

    ours = {part for part in leaves(Objective) if part.__module__.startswith("ssl_scale")}
    assert ours == {type(case()) for case in CASES.values()}


def test_losses_over_pairs_say_so():
    pairs = {name for name in CASES if CASES[name]().pairs}
    assert pairs == {
        "ntxent",
        "ntxent, batch norm",
        "infonce",
        "vicreg",
        "barlow twins",
        "supcon",
        "sigmoid contrast",
        "moco v3",
        "moco v3, batch norm",
        "nnclr",
        "dino, masked, sinkhorn",
        "ibot, sinkhorn",
        "koleo",
        "swav",
        "swav, two crops, batch norm",
        "swav, queue",
    }
