"""Which source feeds a step: a pure function of the weights, the seed and the step's number.

Weights become whole shares of one period; the period's schedule is worked out once, so that after
*any* number of draws each source's count is within one of its due. That is proportionate fairness:
unit j of a source with share w of P must come after draw ``floor(j P / w)`` and no later than draw
``ceil((j + 1) P / w)``; taking the earliest deadline first always manages (Baruah, Cohen, Plaxton
and Varvel, "Proportionate progress", Algorithmica 15, 1996). There is no drift and nothing to save:
the number of the draw says how far each source has got.

A new unit (samples, tokens) or a weight that changes over training is another `Mixture` here.
"""

import heapq
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ssl_scale.data.seeds import combine
from ssl_scale.errors import RecipeError

# Weights that are not ratios of small numbers are rounded to this many shares.
_LONGEST_PERIOD = 10_000


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


class Mixture(ABC):
    """Named sources with weights; says what each step takes from them.

    Args:
        weights: source name -> weight above 0; only their ratios count.
        global_batch: samples a step, over all ranks and micro-batches.
        seed: decides who goes first where the weights leave it open.
    """

    def __init__(self, weights: Mapping[str, float], global_batch: int, seed: int = 0) -> None:
        if global_batch < 1:
            raise RecipeError(f"global_batch must be at least 1, but is {global_batch}")
        self.global_batch = global_batch
        self.seed = seed
        self.shares = whole_shares(weights)

    @abstractmethod
    def draw(self, step: int) -> tuple[Share, ...]:
        """What a step takes."""

    @abstractmethod
    def positions(self, step: int) -> dict[str, int]:
        """How many samples each source gave before a step: the whole state of the data."""


class OneSource(Mixture):
    """Each step draws one source, the same on every rank; weights count steps."""

    def __init__(self, weights: Mapping[str, float], global_batch: int, seed: int = 0) -> None:
        super().__init__(weights, global_batch, seed)
        self._names = list(self.shares)
        self._turns, self._before = _schedule(self.shares, seed)

    def draw(self, step: int) -> tuple[Share, ...]:
        """One source's next batch."""
        name = self._names[self._turns[step % len(self._turns)]]
        return (Share(name, self.positions(step)[name], self.global_batch),)

    def positions(self, step: int) -> dict[str, int]:
        """Batches before the step, times the batch."""
        periods, rest = divmod(step, len(self._turns))
        return {
            name: (periods * share + int(self._before[rest, place])) * self.global_batch
            for place, (name, share) in enumerate(self.shares.items())
        }


class AllSources(Mixture):
    """Each step draws from every source; weights split the global batch."""

    def __init__(self, weights: Mapping[str, float], global_batch: int, seed: int = 0) -> None:
        super().__init__(weights, global_batch, seed)
        if global_batch < len(self.shares):
            raise RecipeError(
                f"global_batch must be at least the number of sources where each step draws from "
                f"all, {len(self.shares)}, but is {global_batch}"
            )
        self._counts = _apportion({n: Fraction(s) for n, s in self.shares.items()}, global_batch)

    def draw(self, step: int) -> tuple[Share, ...]:
        """Every source's next part."""
        return tuple(Share(name, step * count, count) for name, count in self._counts.items())

    def positions(self, step: int) -> dict[str, int]:
        """Steps times each source's part."""
        return {name: step * count for name, count in self._counts.items()}


def make_mixture(
    weights: Mapping[str, float],
    global_batch: int,
    per_step: Literal["one", "all"] = "one",
    seed: int = 0,
) -> Mixture:
    """The mixture that a recipe's ``per_step`` asks for."""
    return {"one": OneSource, "all": AllSources}[per_step](weights, global_batch, seed)


def temperature_weights(sizes: Mapping[str, int], temperature: float) -> dict[str, float]:
    """Weights ``n ** (1 / T)``: T = 1 follows the sizes, a large T treats sources alike.

    Paper: Massively Multilingual Neural Machine Translation in the Wild, arXiv 1907.05019,
    section 4.2.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, but is {temperature}")
    return {name: size ** (1 / temperature) for name, size in sizes.items()}


def whole_shares(weights: Mapping[str, float]) -> dict[str, int]:
    """Weights as the smallest whole numbers of the same ratios.

    Ratios that would need a period of more than ten thousand draws are rounded to one of that many.

    Raises:
        RecipeError: there are no sources, or a weight is not a number above 0.
    """
    if not weights:
        raise RecipeError("a mixture must have at least one source, but has none")
    for name, weight in weights.items():
        if not 0 < weight < float("inf"):
            raise RecipeError(f"source {name!r}: weight must be above 0, but is {weight}")
    exact = {name: Fraction(str(weight)) for name, weight in weights.items()}
    scale = lcm(*(weight.denominator for weight in exact.values()))
    whole = {name: int(weight * scale) for name, weight in exact.items()}
    divisor = np.gcd.reduce(np.array(list(whole.values()), dtype=object))
    whole = {name: share // divisor for name, share in whole.items()}
    if sum(whole.values()) <= _LONGEST_PERIOD:
        return whole
    return _apportion(exact, _LONGEST_PERIOD)


def _apportion(weights: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """Split `total` by weights, the largest remainders rounded up, nobody left with nothing."""
    whole = sum(weights.values())
    due = {name: total * weight / whole for name, weight in weights.items()}
    parts = {name: int(quota) for name, quota in due.items()}
    left = total - sum(parts.values())
    for name in sorted(due, key=lambda name: parts[name] - due[name])[:left]:
        parts[name] += 1
    for name in (name for name, part in parts.items() if part == 0):
        parts[max(parts, key=parts.__getitem__)] -= 1
        parts[name] = 1
    return parts


def _schedule(shares: Mapping[str, int], seed: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The source of each draw of a period, and each source's count before each draw."""
    period = sum(shares.values())
    sizes = list(shares.values())
    # Equal deadlines go by a shuffled rank, so that no source leads just by its name.
    ranks = combine(seed, np.arange(len(sizes))).argsort().argsort().tolist()
    waiting = [(0, rank, place, 0) for place, rank in enumerate(ranks)]
    ready: list[tuple[int, int, int, int]] = []
    turns = np.empty(period, dtype=np.int32)
    for draw in range(period):
        while waiting and waiting[0][0] <= draw:
            _, rank, place, unit = heapq.heappop(waiting)
            deadline = -(-(unit + 1) * period // sizes[place])
            heapq.heappush(ready, (deadline, rank, place, unit))
        _, rank, place, unit = heapq.heappop(ready)
        turns[draw] = place
        release = (unit + 1) * period // sizes[place]
        heapq.heappush(waiting, (release, rank, place, unit + 1))
    counts = np.zeros((period + 1, len(sizes)), dtype=np.int32)
    np.cumsum(turns[:, None] == np.arange(len(sizes)), axis=0, out=counts[1:])
    return turns, counts
