"""Sources whose loss is far above what could be reached are drawn more often."""

import math
from collections.abc import Mapping
from typing import Any

from ssl_scale.data.mixture.weight_rule import WeightRule
from ssl_scale.errors import RecipeError
from ssl_scale.part import Positive, Probability, SourceName


class LossWeights(WeightRule):
    """DoReMi's group DRO: exponentiated gradient ascent on each source's excess loss.

    With excess ``x = max(loss - reference, 0)`` a round's weights are
    ``a <- (1 - c) normalised(a exp(rate x)) + c / K`` for K sources.

    Paper: DoReMi: Optimizing Data Mixtures Speeds Up Language Model Pretraining, arXiv 2305.10429,
    algorithm 1.

    Differs: the excess is clipped for a source's mean instead of each token, a step of the weights
    is a round of training steps, and the weights act on this very run instead of being averaged
    for a second one.

    Args:
        references: source -> loss that it should come down to, for instance the last one of a
            smaller system.
        rate: step size of the weights (eta in the paper).
        smoothing: share of the weights that all sources have alike (c in the paper).
    """

    def __init__(
        self,
        references: Mapping[SourceName, float],
        rate: Positive = 1.0,
        smoothing: Probability = 1e-3,
    ) -> None:
        self.references, self.rate, self.smoothing = dict(references), rate, smoothing
        self.weights: dict[str, float] = {}

    def start(self, weights: Mapping[str, float]) -> None:
        """Begin with the recipe's weights.

        Raises:
            RecipeError: a source has no reference, or a reference no source.
        """
        if self.references.keys() != weights.keys():
            raise RecipeError(
                f"references must name the sources {sorted(weights)}, but name "
                f"{sorted(self.references)}"
            )
        self.weights = dict(weights)

    def learn(self, losses: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
        """Raise the weights of who lags behind; a source that was not drawn has no excess."""
        excess = {
            name: max(losses.get(name, reference) - reference, 0.0)
            for name, reference in self.references.items()
        }
        most = max(excess.values())
        raised = {
            name: weight * math.exp(self.rate * (excess[name] - most))
            for name, weight in self.weights.items()
        }
        whole, alike = sum(raised.values()), self.smoothing / len(raised)
        self.weights = {
            name: (1 - self.smoothing) * value / whole + alike for name, value in raised.items()
        }
        return dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """The weights, unrounded."""
        return {"weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue."""
        self.weights = dict(state["weights"])
