"""From a recipe to its mixture, and on from where a checkpoint's mixture was.

A mixture is a pure function of the step, as long as nothing is changed that it depends on. So a
checkpoint holds a description of it and each source's position. A run that resumes with the same
description goes on as if it had never stopped. With another one (a source more or less, other
weights, another batch) it begins a new mixture at this step, in which every source goes on from
its own position.

Weights that are learned (`learning`) are kept in the checkpoint beside it.
"""

import json
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from ssl_scale.data.mixture import Begin, Ending, Mixture, make_mixture, temperature_weights
from ssl_scale.data.mixture.stretches import ConstantWeights, ScheduledWeights, Weights
from ssl_scale.data.mixture.told import ToldWeights
from ssl_scale.data.source import Source
from ssl_scale.errors import DataError
from ssl_scale.optim.schedule import Constant
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.train.budgets import lengths_of
from ssl_scale.train.learning import Learning
from ssl_scale.train.source_losses import SourceLosses


def mixture_of(
    recipe: Recipe,
    sources: Mapping[str, Source],
    num_steps: int,
    begin: Begin | None = None,
    weights: Weights | None = None,
) -> Mixture:
    """What each step takes.

    Args:
        recipe: a checked recipe.
        sources: its training sources.
        num_steps: of the whole run, which schedules of weights are stretched over.
        begin: where the mixture begins.
        weights: that are learned; the recipe's own unless given.
    """
    plan = recipe.data
    begin = begin or Begin()
    endings = {
        name: Ending(spec.end, len(sources[name]))
        for name, spec in plan.sources.items()
        if spec.end != "repeat"
    }
    if weights is None:
        draws = _draws_a_step(recipe)
        weights = _weights(recipe, sources, num_steps * draws, begin.step * draws)
    return make_mixture(
        weights,
        plan.global_batch,
        plan.per_step,
        recipe.train.seed,
        unit="batch" if plan.mixture.unit == "batch" else "sample",
        endings=endings,
        begin=begin,
    )


def _draws_a_step(recipe: Recipe) -> int:
    return 1 if recipe.data.mixture.unit == "batch" else recipe.data.global_batch


def _weights(recipe: Recipe, sources: Mapping[str, Source], num_draws: int, first: int) -> Weights:
    by_size, by_length = _size_factors(recipe, sources), _length_factors(recipe, sources)
    factors = {name: by_size[name] * by_length[name] for name in sources}
    specs = {name: spec.weight for name, spec in recipe.data.sources.items()}
    if all(spec.part is Constant for spec in specs.values()):
        return ConstantWeights(
            {name: spec.arguments["value"] * factors[name] for name, spec in specs.items()}
        )
    schedules = {name: _Scaled(spec.build(), factors[name]) for name, spec in specs.items()}
    return ScheduledWeights(schedules, num_draws, first)


def _size_factors(recipe: Recipe, sources: Mapping[str, Source]) -> dict[str, float]:
    """What a temperature multiplies each source's weight by."""
    temperature, tokens = recipe.data.mixture.temperature, _mean_tokens(recipe, sources)
    if temperature is None:
        return dict.fromkeys(sources, 1.0)
    sizes = {name: len(source) for name, source in sources.items()}
    if tokens:
        sizes = {name: round(size * tokens[name]) for name, size in sizes.items()}
    return temperature_weights(sizes, temperature)


def _length_factors(recipe: Recipe, sources: Mapping[str, Source]) -> dict[str, float]:
    """A source of longer samples needs fewer of them for as many tokens."""
    tokens = _mean_tokens(recipe, sources)
    return {name: 1 / tokens.get(name, 1.0) for name in sources}


def _learning(
    recipe: Recipe,
    sources: Mapping[str, Source],
    num_steps: int,
    begin: Begin,
    held: Mapping[str, Any] | None,
) -> Learning | None:
    """What learns the weights from a beginning on, if the recipe asks for it.

    Args:
        recipe: a checked recipe.
        sources: its training sources.
        num_steps: of the whole run.
        begin: where the mixture begins: a round's first step.
        held: the learning's state, where the run goes on with it.
    """
    plan = recipe.data.mixture.learned
    if plan is None:
        return None
    origin = begin.step if held is None else held["origin"]
    first = (begin.step - origin) // plan.every
    weights = ToldWeights(
        tuple(sources),
        plan.every * _draws_a_step(recipe),
        max((num_steps - origin) // plan.every - first, 0) + 2,  # 0: a run made shorter
        _length_factors(recipe, sources),
    )
    losses = SourceLosses({name: spec.feeds for name, spec in recipe.data.sources.items()})
    learning = Learning(plan.spec.build(), weights, plan.every, origin, first, losses)
    if held is not None:
        learning.go_on(held)
        return learning
    by_size = _size_factors(recipe, sources)
    given = {n: spec.weight.arguments["value"] for n, spec in recipe.data.sources.items()}
    learning.start({name: weight * by_size[name] for name, weight in given.items()})
    return learning


def _mean_tokens(recipe: Recipe, sources: Mapping[str, Source]) -> dict[str, float]:
    """Tokens of a sample of each source, where weights count tokens."""
    if recipe.data.mixture.unit != "token":
        return {}
    means = {name: each.mean() for name, each in lengths_of(recipe, sources).items()}
    for name in sources:
        if not means.get(name):
            field = recipe.data.sources[name].lengths
            raise DataError(
                f"source {name!r}: must have tokens in field {field!r} where weights count tokens "
                "(data.mixture.unit), but has none"
            )
    return means


class _Scaled:
    """A schedule times a factor; a class, since loader workers may be sent it."""

    def __init__(self, schedule: Callable[[float], float], factor: float) -> None:
        self.schedule, self.factor = schedule, factor

    def __call__(self, progress: float) -> float:
        return self.schedule(progress) * self.factor


def describe(recipe: Recipe, sources: Mapping[str, Source], num_steps: int) -> dict[str, Any]:
    """All that the mixture depends on, as JSON; what a recipe does not use is left out."""
    plan = recipe.data
    weights = {name: spec.weight for name, spec in plan.sources.items()}
    is_scheduled = any(spec.part is not Constant for spec in weights.values())
    described = {
        "unit": "parts" if plan.per_step == "all" else plan.mixture.unit,
        "temperature": plan.mixture.temperature,
        "global_batch": plan.global_batch,
        "seed": recipe.train.seed,
        "num_steps": num_steps if is_scheduled else None,
        "mean_tokens": _mean_tokens(recipe, sources),
        "sources": {
            name: {
                "weight": {"type": weights[name].part.__name__, **weights[name].arguments},
                "end": spec.end,
                "feeds": sorted(spec.feeds),
                "samples": sources[name].fingerprint,
            }
            for name, spec in plan.sources.items()
        },
    }
    learned = plan.mixture.learned
    if learned is not None:
        rule = {"type": learned.spec.part.__name__, **learned.spec.arguments}
        described["learned"] = {**rule, "every": learned.every}
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


class RunMixture:
    """The mixture of a run, from its start or from a checkpoint on.

    Args:
        recipe: a checked recipe.
        sources: its training sources.
        num_steps: of the whole run.
        state: of the checkpoint that the run goes on from.

    Attributes:
        mixture: what each step takes.
        learning: what learns its weights, if they are learned.
        news: what has changed since the checkpoint, a line each.
    """

    def __init__(
        self,
        recipe: Recipe,
        sources: Mapping[str, Source],
        num_steps: int,
        state: Mapping[str, Any] | None,
    ) -> None:
        self.described = describe(recipe, sources, num_steps)
        self.news: list[str] = []
        begin, learned = Begin(), None
        # Checkpoints of earlier versions do not tell: nothing could be changed then.
        held = (state or {}).get("mixture")
        if state is not None and held is not None:
            learned = held.get("learned")
            begin = _read_begin(held["begin"])
            if held["described"] != self.described:
                drawn = state["done"] + state.get("passed", 0)
                begin, learned = Begin(drawn, held["positions"]), None
                self.news = tell_changes(held["described"], self.described, begin)
        self.learning = _learning(recipe, sources, num_steps, begin, learned)
        if self.learning is not None and self.learning.acts_from >= num_steps:
            self.news.append(
                f"nothing that is learned comes into force before step {self.learning.acts_from}, "
                f"but the run has {num_steps}: lower data.mixture.learned.every"
            )
        weights = None if self.learning is None else self.learning.weights
        self.mixture = mixture_of(recipe, sources, num_steps, begin, weights)

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint after so many steps holds; a collective where weights are learned."""
        begin, learned = self.mixture.begin, {}
        if self.learning is not None:
            begin = self.mixture.begin_at(self.learning.begins(step))
            learned = {"learned": self.learning.state(step)}
        return {
            "described": self.described,
            "begin": _write_begin(begin),
            "positions": self.mixture.positions(step),
            **learned,
        }


def _write_begin(begin: Begin) -> dict[str, Any]:
    owed = {name: str(draws) for name, draws in begin.owed.items()}
    return {"step": begin.step, "positions": dict(begin.positions), "owed": owed}


def _read_begin(held: Mapping[str, Any]) -> Begin:
    owed = {name: Fraction(draws) for name, draws in held.get("owed", {}).items()}
    return Begin(held["step"], held["positions"], owed)


def tell_changes(before: Mapping[str, Any], after: Mapping[str, Any], begin: Begin) -> list[str]:
    """What a run that goes on with another mixture should know."""
    olds, news = before["sources"], after["sources"]
    lines = [
        f"source {name!r} is new: it begins at its first sample"
        for name in news
        if name not in olds
    ]
    lines += [
        f"source {name!r} is gone, after {begin.positions[name]:,} samples"
        for name in olds
        if name not in news
    ]
    for name in (name for name in news if name in olds):
        changed = [key for key in news[name] if news[name][key] != olds[name].get(key)]
        at = f"it goes on from position {begin.positions[name]:,}"
        if "samples" in changed:
            lines.append(
                f"source {name!r} has other samples or another order than before: {at} of the new "
                "order, so some samples may come again early and others late"
            )
        if {"weight", "end"} & {*changed}:
            lines.append(f"source {name!r} has another weight or end: {at}")
    lines += [
        f"{key} was {before.get(key)}, and is {after.get(key)}"
        for key in {**after, **before}
        if key != "sources" and after.get(key) != before.get(key)
    ]
    if before.get("learned") and after.get("learned"):
        lines.append("weights are learned afresh, from those that the recipe gives")
    start = (
        f"the mixture has changed and begins anew at step {begin.step}, every source where it was"
    )
    return [start, *lines]


def may_continue(recipe: Recipe, state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint differs from the recipe in its sources only, added or removed."""
    if state.get("without_sources") != recipe.fingerprint_without_sources():
        return False
    before = state["mixture"]["described"]["sources"]
    return all(
        before[name]["feeds"] == sorted(spec.feeds)
        for name, spec in recipe.data.sources.items()
        if name in before
    )
