"""What is looked at in one process: every check is a function of a choice."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ssl_scale.verify.collapse import collapse
from ssl_scale.verify.finding import Finding, compare
from ssl_scale.verify.loading import Choice
from ssl_scale.verify.ranks import summary
from ssl_scale.verify.training import Outcome, train_step
from ssl_scale.verify.world import Samples, World, make_samples

NUM = 13
BF16 = 0.05


def outcome(choice: Choice, *micro_batches: Sequence[int], num: int = NUM) -> Outcome:
    """What a step over rows of the standard samples gives, on this rank."""
    samples = make_samples(num)
    return train_step(choice.world(), [samples.pick(rows) for rows in micro_batches])


def plain(choice: Choice) -> Finding:
    """One step in one process: finite, and it teaches an encoder."""
    world = choice.world()
    step = world.step(make_samples(NUM))
    count = world.objective.count(step)
    told = [
        f"{name} must be a parameter of a module of its own (ZeRO-3 gathers it there), but is held "
        "by the objective"
        for name, _ in world.objective.named_parameters(recurse=False)
    ]
    if step.memo:
        told.append("count must be known before any encoder runs, but asks for features")
    if not count > 0:
        told.append(f"count must be above 0 for {NUM} samples, but is {float(count):g}")
    total = world.objective(step).total
    if total.shape != ():
        told.append(f"total must be a scalar, but has shape {list(total.shape)}")
        return Finding("one process", "fails", told="; ".join(told))
    total.backward()
    reached = _gradients(world)
    if not any(name.startswith("encoders.") and grad.any() for name, grad in reached.items()):
        told.append("no gradient reaches an encoder")
    finite = bool(total.isfinite()) and all(
        bool(grad.isfinite().all()) for grad in reached.values()
    )
    if not finite:
        told.append("loss and gradients must be finite, but are not: absent samples hold NaN")
    what = "" if told else f"loss {float(total.detach()) / float(count):.4g}"
    return Finding("one process", "fails" if told else "ok", told="; ".join(told) or what)


def order(choice: Choice) -> Finding:
    """The same samples the other way round."""
    rows = list(range(NUM))
    there, back = outcome(choice, rows), outcome(choice, rows[::-1])
    return compare("order of samples", back, there, buffers=False)


def accumulation(choice: Choice) -> Finding:
    """Two unequal micro-batches."""
    name = "accumulation, 5 + 8 samples"
    if choice.spec().part.pairs:
        return Finding(name, "declared", told="it compares samples (`pairs`), and refuses")
    rows = list(range(NUM))
    parts, whole = outcome(choice, rows[:5], rows[5:]), outcome(choice, rows)
    found = compare(name, parts, whole, buffers=False)
    if found.is_fault:
        told = f"{found.told}; an objective that compares samples must say `pairs = True`"
        return Finding(name, found.result, found.value, found.gradient, told)
    return found


def absent(choice: Choice) -> list[Finding]:
    """Samples that lack something add nothing, or just what they would add with it."""
    samples = make_samples(40)
    whole = samples.has_image & (samples.lengths > 0) & (samples.label >= 0)
    kept = whole.nonzero().flatten().tolist()[:9]
    alone = train_step(choice.world(), [samples.pick(kept)])
    nothing = samples.pick([*kept[:6], *kept[:3], *kept[6:]])
    extra = slice(6, 9)
    nothing.lack_image(extra)
    nothing.lack_text(extra)
    nothing.lack_labels(extra)
    nothing.seeds[extra] += 1
    found = [
        compare("samples without anything", train_step(choice.world(), [nothing]), alone, False)
    ]
    for what in ("image", "text"):
        more = samples.pick([*kept[:6], *kept[:3], *kept[6:]])
        more.seeds[extra] += 1
        with_it = train_step(choice.world(), [more])
        getattr(more, f"lack_{what}")(extra)
        without = train_step(choice.world(), [more])
        name = f"samples without {what}"
        either = [compare(name, without, other, False) for other in (alone, with_it)]
        found.append(next((each for each in either if not each.is_fault), either[0]))
    return found


def empty(choice: Choice) -> Finding:
    """A rank without any item takes part with a loss of zero."""
    name = "no items at all"
    reached = set(_after_backward(choice.world(), make_samples(NUM)))
    world, samples = choice.world(), make_samples(NUM)
    every = slice(None)
    samples.lack_image(every)
    samples.lack_text(every)
    samples.lack_labels(every)
    step = world.step(samples)
    told = []
    if (count := float(world.objective.count(step))) != 0:
        told.append(f"count must be 0, but is {count:g}")
    if (total := float(world.objective(step).total.detach())) != 0:
        told.append(f"the loss must be 0, but is {total:g}")
    gradients = _after_backward(world, samples)
    if missing := sorted(reached - set(gradients)):
        told.append(f"{missing[0]} gets no gradient, not even zero: ranks would mix theirs up")
    if any(bool(gradient.any()) for gradient in gradients.values()):
        told.append("gradients must be zero, but are not")
    return Finding(name, "fails" if told else "ok", told="; ".join(told))


def half_precision(choice: Choice) -> Finding:
    """Encoders and heads in bf16."""
    losses: list[Tensor] = []
    for dtype in (torch.float64, torch.bfloat16):
        world = choice.world(dtype)
        total: Tensor = world.objective(world.step(make_samples(NUM, dtype))).total
        total.backward()  # type: ignore[no-untyped-call]
        losses.append(total)
    true, found = (loss.detach().double() for loss in losses)
    error = float((found - true).abs() / true.abs().clamp(min=1e-12))
    told = []
    if losses[1].dtype in (torch.bfloat16, torch.float16):
        told.append("the loss must be computed in fp32 (`full_precision`), but is in half")
    if not all(bool(gradient.isfinite().all()) for gradient in _gradients(world).values()):
        told.append("gradients must be finite, but are not")
    if not error < BF16:
        told.append(f"the loss is {float(found):.4g}, but {float(true):.4g} in float64")
    return Finding("bf16", "differs" if told else "ok", error, told="; ".join(told))


def two_samples(choice: Choice) -> Finding:
    """The smallest batch that compares anything."""
    name = "a batch of two"
    try:
        found = outcome(choice, [0, 5])
    except ValueError as error:
        return Finding(name, "declared", told=str(error))
    finite = found.value.isfinite() and all(g.isfinite().all() for g in found.gradients.values())
    return Finding(name, "ok" if finite else "fails", told="" if finite else "it is not finite")


Check = Callable[[Choice], Finding | list[Finding]]
CHECKS: Sequence[Check] = (
    order,
    two_samples,
    accumulation,
    absent,
    empty,
    half_precision,
    collapse,
)


def on_one_process(
    choice: Choice, splits: Sequence[Sequence[Sequence[int]]]
) -> tuple[list[Finding], list[Outcome]]:
    """Every check but `plain`, and what each split must give."""
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            found = check(choice)
        except Exception as error:  # the user's code runs here
            told = summary(error)
            found = Finding(check.__name__.replace("_", " "), "fails", told=told)
        findings += found if isinstance(found, list) else [found]
    joined = [[row for rows in split for row in rows] for split in splits]
    return findings, [outcome(choice, rows) for rows in joined]


def _gradients(world: World) -> dict[str, Tensor]:
    return {name: p.grad for name, p in world.named_parameters() if p.grad is not None}


def _after_backward(world: World, samples: Samples) -> dict[str, Tensor]:
    world.zero_grad()
    world.objective(world.step(samples)).total.backward()
    return _gradients(world)
