"""A bandit: sources with large losses are drawn more often, and none is forgotten."""

import math
from collections.abc import Mapping
from typing import Any

from ssl_scale.data.mixture.weight_rule import WeightRule
from ssl_scale.part import Ratio


class BanditWeights(WeightRule):
    """Online Data Mixing: Exp3 with the loss as reward.

    The reward R of a source is a moving average of loss / weight, and round t's weights are
    ``(1 - K e_t) softmax(e_(t-1) R) + e_t`` for K sources, with ``e_t = min(1 / K, sqrt(ln K /
    (K t)))``: all alike for the first ``K ln K`` rounds, at least e_t later on.

    Paper: Efficient Online Data Mixing For Language Model Pre-Training, arXiv 2312.02406, section 3
    and algorithm 1.

    Differs: a turn is a round of steps rather than one step, its reward comes into force a round
    later, and within a round sources are drawn in exact proportions rather than at random.

    Args:
        smoothing: share of R that a new reward leaves as it was (alpha in the paper).
    """

    def __init__(self, smoothing: Ratio = 0.9) -> None:
        self.smoothing = smoothing
        self.rewards: dict[str, float] = {}
        self.rounds = 0

    def start(self, weights: Mapping[str, float]) -> None:
        """No source has earned anything."""
        self.rewards, self.rounds = dict.fromkeys(weights, 0.0), 0

    def learn(self, losses: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
        """Reward who was drawn; weigh all."""
        for name, loss in losses.items():
            gain = (1 - self.smoothing) * loss / weights[name]
            self.rewards[name] = self.smoothing * self.rewards[name] + gain
        before, self.rounds = self._exploration(), self.rounds + 1
        after, best = self._exploration(), max(self.rewards.values())
        exps = {n: math.exp(before * (reward - best)) for n, reward in self.rewards.items()}
        factor = (1 - len(exps) * after) / sum(exps.values())
        return {name: factor * value + after for name, value in exps.items()}

    def state_dict(self) -> dict[str, Any]:
        """The rewards, and how often there were any."""
        return {"rewards": self.rewards, "rounds": self.rounds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue."""
        self.rewards, self.rounds = dict(state["rewards"]), state["rounds"]

    def _exploration(self) -> float:
        """Weight that every source has for certain, e in the paper."""
        sources = len(self.rewards)
        if self.rounds == 0:
            return 1 / sources
        return min(1 / sources, math.sqrt(math.log(sources) / (sources * self.rounds)))
