"""What a step takes from the sources, by what their weights count."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Literal

from ssl_scale.data.mixture.shares import apportion, whole_shares
from ssl_scale.data.mixture.stretches import ConstantWeights, Weights
from ssl_scale.data.mixture.timeline import Ending, Timeline
from ssl_scale.errors import RecipeError


@dataclass(frozen=True)
class Share:
    """A run of consecutive samples that a step takes from one source.

    Args:
        source: its name.
        start: position of the first one in the source's order.
        count: how many, over all ranks and micro-batches.
    """

    source: str
    start: int
    count: int


@dataclass(frozen=True)
class Begin:
    """Where a mixture begins: at the first step, or where another one left off.

    Args:
        step: of the run.
        positions: source -> samples that were drawn from it before; 0 for one not named.
        owed: source -> draws that rounding left it owing before; 0 for one not named.
    """

    step: int = 0
    positions: Mapping[str, int] = field(default_factory=dict)
    owed: Mapping[str, Fraction] = field(default_factory=dict)


class Mixture(ABC):
    """Named sources with weights; says what each step takes from them.

    Args:
        weights: source name -> weight above 0, of which only ratios count; or weights that change.
        global_batch: samples a step, over all ranks and micro-batches.
        seed: decides who goes first where the weights leave it open.
        endings: of the sources that end, in samples; the others start their next epoch.
        begin: where it begins.

    Raises:
        RecipeError: a weight or the batch is out of range, or a source that ends has less than a
            batch.

    Attributes:
        is_even: whether ranks and micro-batches must be able to share what a step takes evenly.
    """

    is_even: bool = True

    def __init__(
        self,
        weights: Mapping[str, float] | Weights,
        global_batch: int,
        seed: int = 0,
        endings: Mapping[str, Ending] | None = None,
        begin: Begin | None = None,
    ) -> None:
        if global_batch < 1:
            raise RecipeError(f"global_batch must be at least 1, but is {global_batch}")
        if not isinstance(weights, Weights):
            whole_shares(weights)
            weights = ConstantWeights(weights)
        self.weights, self.global_batch, self.seed = weights, global_batch, seed
        self.names = weights.names
        self.begin = begin or Begin()
        self.endings = dict(endings or {})
        for name, ending in self.endings.items():
            if ending.count < global_batch:
                raise RecipeError(
                    f"source {name!r}: must have at least a global_batch of {global_batch} samples "
                    f"to end (end: {ending.kind}), but has {ending.count}; let it repeat"
                )

    @abstractmethod
    def positions(self, step: int) -> dict[str, int]:
        """How many samples each source gave before a step: the whole state of the data."""

    @property
    @abstractmethod
    def end(self) -> int | None:
        """The first step for which too little is left; None where there is always more."""

    def draw(self, step: int) -> tuple[Share, ...]:
        """What a step takes: each source's next samples."""
        here, there = self.positions(step), self.positions(step + 1)
        return tuple(
            Share(name, start, there[name] - start)
            for name, start in here.items()
            if there[name] > start
        )

    def begin_at(self, step: int) -> Begin:
        """Where a mixture begins that goes on from a step at which the weights change."""
        return Begin(step, self.positions(step))

    def _start(self, name: str) -> int:
        return self.begin.positions.get(name, 0)

    def _timeline(self, samples_each: int) -> Timeline:
        """The draws, each of so many samples, from the beginning on."""
        endings = {
            name: Ending(ending.kind, max(ending.count - self._start(name), 0) // samples_each)
            for name, ending in self.endings.items()
        }
        return Timeline(self.weights, endings, self.seed, self.begin.owed)


class OneSource(Mixture):
    """Each step draws one source, the same on every rank; weights count steps."""

    @cached_property
    def _draws(self) -> Timeline:
        return self._timeline(self.global_batch)

    def positions(self, step: int) -> dict[str, int]:
        """Batches before the step, times the batch."""
        batches = self._draws.before(step - self.begin.step)
        return {n: self._start(n) + count * self.global_batch for n, count in batches.items()}

    def begin_at(self, step: int) -> Begin:
        """Also with what is owing."""
        return Begin(step, self.positions(step), self._draws.owed(step - self.begin.step))

    @property
    def end(self) -> int | None:
        """The step that would draw a batch which is not there any more."""
        return None if self._draws.end is None else self.begin.step + self._draws.end


class EachSample(Mixture):
    """Each sample's source is drawn by itself; weights count samples.

    A step's samples are those of `global_batch` draws, put together by source. A source that is
    rare is not in every step.
    """

    is_even = False

    @cached_property
    def _draws(self) -> Timeline:
        return self._timeline(1)

    def positions(self, step: int) -> dict[str, int]:
        """Draws of all batches before the step."""
        samples = self._draws.before((step - self.begin.step) * self.global_batch)
        return {name: self._start(name) + count for name, count in samples.items()}

    def begin_at(self, step: int) -> Begin:
        """Also with what is owing."""
        draw = (step - self.begin.step) * self.global_batch
        return Begin(step, self.positions(step), self._draws.owed(draw))

    @property
    def end(self) -> int | None:
        """The step that could not be filled."""
        end = self._draws.end
        return None if end is None else self.begin.step + end // self.global_batch


class AllSources(Mixture):
    """Each step draws from every source; weights split the global batch, always alike."""

    def __init__(
        self,
        weights: Mapping[str, float] | Weights,
        global_batch: int,
        seed: int = 0,
        endings: Mapping[str, Ending] | None = None,
        begin: Begin | None = None,
    ) -> None:
        super().__init__(weights, global_batch, seed, endings, begin)
        if not isinstance(self.weights, ConstantWeights):
            raise RecipeError(
                "weights must be plain numbers where the parts of a batch are fixed (per_step: "
                "all), but change over training; leave per_step out, and set mixture.unit: sample"
            )
        if global_batch < len(self.names):
            raise RecipeError(
                f"global_batch must be at least the number of sources where each step draws from "
                f"all, {len(self.names)}, but is {global_batch}"
            )
        self._stages, self._end = self._lay_out(whole_shares(self.weights.weights))

    def positions(self, step: int) -> dict[str, int]:
        """Steps times each source's part."""
        step = step if self._end is None else min(step, self._end)
        start, before, parts = next(stage for stage in reversed(self._stages) if stage[0] <= step)
        return {n: count + (step - start) * parts.get(n, 0) for n, count in before.items()}

    @property
    def end(self) -> int | None:
        """The step for which a source that ends has too little left."""
        return self._end

    def _lay_out(
        self, shares: dict[str, int]
    ) -> tuple[list[tuple[int, dict[str, int], dict[str, int]]], int | None]:
        """First step, positions and parts of each stage; a new one begins where a source ends."""
        step, before = self.begin.step, {name: self._start(name) for name in self.names}
        stages = []
        while shares:
            parts = apportion(
                {n: Fraction(share) for n, share in shares.items()}, self.global_batch
            )
            stages.append((step, before, parts))
            lasts = {
                name: max(ending.count - before[name], 0) // parts[name]
                for name, ending in self.endings.items()
                if name in parts
            }
            if not lasts:
                return stages, None
            steps = min(lasts.values())
            step += steps
            before = {n: count + steps * parts.get(n, 0) for n, count in before.items()}
            ended = [name for name, last in lasts.items() if last == steps]
            if any(self.endings[name].kind == "stop" for name in ended):
                break
            shares = {name: share for name, share in shares.items() if name not in ended}
        return stages, step


def make_mixture(
    weights: Mapping[str, float] | Weights,
    global_batch: int,
    per_step: Literal["one", "all"] = "one",
    seed: int = 0,
    *,
    unit: Literal["batch", "sample"] = "batch",
    endings: Mapping[str, Ending] | None = None,
    begin: Begin | None = None,
) -> Mixture:
    """The mixture that a recipe asks for: the unit counts where a step is not shared by all."""
    kind = EachSample if unit == "sample" else OneSource
    return (AllSources if per_step == "all" else kind)(weights, global_batch, seed, endings, begin)
