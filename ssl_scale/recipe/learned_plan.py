"""``data.mixture.learned``: weights that change as training shows what the sources are worth."""

from dataclasses import dataclass

from ssl_scale.data.mixture.weight_rule import WeightRule
from ssl_scale.part import Count, Spec


@dataclass(frozen=True)
class LearnedPlan:
    """How weights are learned; those that the sources are given are the first.

    Args:
        spec: the rule.
        every: optimizer steps of a round, in which weights are constant. What is learned in a round
            acts in the one after the next.
    """

    spec: Spec[WeightRule]
    every: Count = 100
