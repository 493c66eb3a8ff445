"""Operations of an average step, and the fullest micro-batch, over a whole run.

Sources take turns, and objectives come and go with progress: each stretch of training in which the
same objectives are active is counted once for every source, and weighted by its length and by the
sources' shares.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from ssl_scale.data.mixture import temperature_weights
from ssl_scale.data.text_field import TextField
from ssl_scale.plan.building import build_with_values, make_batch
from ssl_scale.plan.flops import Counted, count_micro_batch
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.system.system import System

# Operations grow with samples: so many are counted, among the rows of the whole global batch.
_COUNTED = 8
# Values are needed of a few samples only, where shapes alone do not do.
_TRIED = 2


@dataclass(frozen=True)
class StepCost:
    """An average step of all ranks.

    Args:
        forward: operations of forward passes.
        backward: operations of backward passes.
        activations: bytes that one rank keeps for the backward pass of its fullest micro-batch.
        by_source: operations of one sample of each source, both passes.
        tried: source -> why it was run on a few samples with values instead of on shapes.
    """

    forward: float
    backward: float
    activations: float
    by_source: Mapping[str, float]
    tried: Mapping[str, str]

    @property
    def flops(self) -> float:
        """Operations of both passes."""
        return self.forward + self.backward


class Counter:
    """Counts what one sample of a source costs at a point of training, once for each answer.

    Args:
        recipe: a checked recipe.
        system: on the meta device.
        vocab_size: of texts, where it is told.
    """

    def __init__(self, recipe: Recipe, system: System, vocab_size: int | None = None) -> None:
        self.recipe, self.system, self.vocab_size = recipe, system, vocab_size
        self.tried: dict[str, str] = {}
        self._known: dict[tuple[str, tuple[str, ...]], Counted] = {}

    def of_sample(self, source: str, progress: float) -> Counted:
        """One sample's share of a micro-batch."""
        active = self.system.active(source, progress)
        if not active:
            return Counted(0, 0, 0)
        if (source, active) not in self._known:
            self._known[source, active] = self._count(source, progress)
        return self._known[source, active]

    def _count(self, source: str, progress: float) -> Counted:
        recipe = self.recipe
        rows = recipe.data.global_batch // recipe.train.accumulate
        num = min(rows, _COUNTED)
        try:
            batch = make_batch(recipe, source, num, torch.device("meta"))
            counted = count_micro_batch(self.system, batch, rows // num, progress)
        except (RuntimeError, NotImplementedError) as error:
            self.tried[source] = str(error).splitlines()[0]
            system = build_with_values(recipe, self.vocab_size)
            num = min(rows, _TRIED)
            batch = make_batch(recipe, source, num, torch.device("cpu"))
            counted = count_micro_batch(system, batch, 1, progress)
        return counted.times(1 / num)


def cost_of_steps(
    recipe: Recipe, counter: Counter, world_size: int, sizes: Mapping[str, int]
) -> StepCost:
    """The average step.

    Args:
        recipe: a checked recipe.
        counter: of its system.
        world_size: data ranks.
        sizes: samples of sources, where they are known; else a mixture's temperature has no effect.
    """
    forward = backward = activations = 0.0
    for progress, length in _stretches(recipe):
        shares = source_shares(recipe, progress, sizes)
        each = {name: counter.of_sample(name, progress) for name in shares}
        scale = length * recipe.data.global_batch
        forward += scale * sum(share * each[name].forward for name, share in shares.items())
        backward += scale * sum(share * each[name].backward for name, share in shares.items())
        kept = {
            name: share * micro_batch(recipe, name, world_size) * each[name].activations
            for name, share in _together(recipe, shares).items()
        }
        is_shared = _is_shared(recipe)
        activations = max(activations, sum(kept.values()) if is_shared else max(kept.values()))
    by_source = {name: counter.of_sample(name, 0.5).flops for name in recipe.data.sources}
    return StepCost(forward, backward, activations, by_source, counter.tried)


def micro_batch(recipe: Recipe, source: str, world_size: int) -> float:
    """Samples of a source that a rank takes at once, if it takes of no other."""
    plan = recipe.data
    samples = plan.global_batch / world_size / recipe.train.accumulate
    longest: list[int] = [
        plan.fields[name].arguments["max_tokens"]
        for name in plan.sources[source].fields
        if issubclass(plan.fields[name].part, TextField)
    ]
    if plan.max_tokens is None or plan.sources[source].lengths is None or not longest:
        return samples
    return min(samples, max(plan.max_tokens / max(longest), 1))


def source_shares(recipe: Recipe, progress: float, sizes: Mapping[str, int]) -> dict[str, float]:
    """Each source's part of the samples at a point of training."""
    sources, temperature = recipe.data.sources, recipe.data.mixture.temperature
    factors = dict.fromkeys(sources, 1.0)
    if temperature is not None and sizes.keys() >= sources.keys():
        factors = temperature_weights({name: sizes[name] for name in sources}, temperature)
    weights = {
        name: spec.weight.build()(progress) * factors[name] for name, spec in sources.items()
    }
    whole = sum(weights.values())
    return {name: weight / whole for name, weight in weights.items()}


def _is_shared(recipe: Recipe) -> bool:
    """Whether one micro-batch holds samples of several sources."""
    return recipe.data.per_step == "all" or recipe.data.mixture.unit != "batch"


def _together(recipe: Recipe, shares: Mapping[str, float]) -> Mapping[str, float]:
    """Each source's part of a micro-batch in which it is."""
    return shares if _is_shared(recipe) else dict.fromkeys(shares, 1.0)


def _stretches(recipe: Recipe) -> Iterator[tuple[float, float]]:
    """(a point inside, length) of the stretches of training with the same active objectives."""
    edges = {0.0, 1.0}
    for entry in recipe.objectives.values():
        edges |= {entry.start, entry.until}
    ordered = sorted(edges)
    for start, stop in zip(ordered, ordered[1:], strict=False):
        yield (start + stop) / 2, stop - start
