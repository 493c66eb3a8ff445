"""Weights of a mixture that a run learns from its losses, and takes up again after a resume.

Training goes in rounds of so many steps. After round k, rank 0 shows its rule the sources' mean
losses (reduced, and rounded to 3 digits, so that no rounding of sums matters) and tells everybody
the weights of round k + 2: no batch of that round can have been made yet, however far the loaders
look ahead. So the global batches depend on no number of ranks or workers. A checkpoint within round
k holds the weights of rounds k and k + 1, what the rule has learned, the sums of round k so far,
and where the mixture was when it began.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import partial
from typing import Any

from ssl_scale import dist
from ssl_scale.data.mixture.shares import LONGEST_PERIOD, apportion
from ssl_scale.data.mixture.told import ToldWeights
from ssl_scale.data.mixture.weight_rule import WeightRule
from ssl_scale.errors import SslScaleError
from ssl_scale.train.source_losses import SourceLoss, SourceLosses


class Learning:
    """The rounds of a run.

    Args:
        rule: what learns.
        weights: takes what it says; its first stretch is the round that this start begins in.
        every: steps of a round.
        origin: step at which the first round began.
        first: the round that this start begins in.
        losses: adds up the round's losses.
    """

    def __init__(
        self,
        rule: WeightRule,
        weights: ToldWeights,
        every: int,
        origin: int,
        first: int,
        losses: SourceLosses,
    ) -> None:
        self.rule, self.weights, self.losses = rule, weights, losses
        self.every, self.origin, self.first = every, origin, first

    @property
    def acts_from(self) -> int:
        """The first step that is drawn with learned weights."""
        return self.origin + 2 * self.every

    def start(self, weights: Mapping[str, float]) -> None:
        """Begin with the recipe's weights, for two rounds."""
        whole = sum(weights.values())
        self.rule.start({name: weight / whole for name, weight in weights.items()})
        for round_ in (self.first, self.first + 1):
            self._tell(round_, _shares(weights))

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's state."""
        self.rule.load_state_dict(state["rule"])
        self.losses.load(state["losses"])
        for ahead, shares in enumerate(state["shares"]):
            self._tell(self.first + ahead, shares)

    def add(self, losses: Iterable[SourceLoss]) -> None:
        """Take a step's losses."""
        self.losses.add(losses)

    def end_step(self, done: int, factor: Callable[[str], float]) -> None:
        """After a step; where it ends a round, learn. A collective then.

        Args:
            done: steps done.
            factor: of an objective's loss.

        Raises:
            SslScaleError: on all ranks, a loss is not a number to learn from.
        """
        if (done - self.origin) % self.every:
            return
        means = {
            source: float(f"{_mean(sums, factor):.3g}")
            for source, sums in self.losses.sums().items()
        }
        for source, mean in means.items():
            if not math.isfinite(mean):
                raise SslScaleError(
                    f"step {done}: the mean loss of source {source!r} must be finite to learn its "
                    f"weight from, but is {mean}; start again: the newest checkpoint is sound"
                )
        ended = self.round(done) - 1
        told = dist.from_rank_0(partial(self._learn, means, ended))
        self.rule.load_state_dict(told["rule"])
        self._tell(ended + 2, told["shares"])
        self.losses.clear()

    def round(self, step: int) -> int:
        """The round that a step belongs to."""
        return (step - self.origin) // self.every

    def begins(self, step: int) -> int:
        """The first step of a step's round."""
        return self.origin + self.round(step) * self.every

    def weights_at(self, step: int) -> dict[str, float]:
        """The weights that a step is drawn with; they add up to 1."""
        return {name: share / LONGEST_PERIOD for name, share in self._told(step).items()}

    def state(self, done: int) -> dict[str, Any]:
        """What a checkpoint after so many steps holds. A collective."""
        return {
            "origin": self.origin,
            "shares": [self._told(done), self._told(done + self.every)],
            "rule": self.rule.state_dict(),
            "losses": self.losses.sums(),
        }

    def _learn(self, means: Mapping[str, float], ended: int) -> dict[str, Any]:
        """Shares and the rule's state, as rank 0 decides."""
        used = self.weights_at(self.origin + ended * self.every)
        shares = _shares(self.rule.learn(means, used))
        return {"shares": shares, "rule": self.rule.state_dict()}

    def _tell(self, round_: int, shares: Mapping[str, int]) -> None:
        self.weights.tell(round_ - self.first, shares)

    def _told(self, step: int) -> dict[str, int]:
        shares = self.weights.told(self.round(step) - self.first)
        assert shares is not None, f"step {step} must be in a round whose weights are told"
        return shares


def _mean(sums: Mapping[str, tuple[float, float]], factor: Callable[[str], float]) -> float:
    return sum(factor(name) * total / count for name, (total, count) in sums.items())


def _shares(weights: Mapping[str, float]) -> dict[str, int]:
    return apportion({n: Fraction(weight) for n, weight in weights.items()}, LONGEST_PERIOD)
