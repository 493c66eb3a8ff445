"""Weights as whole shares of a period."""

from collections.abc import Mapping
from fractions import Fraction
from math import lcm

import numpy as np

from ssl_scale.errors import RecipeError

# Weights that are not ratios of small numbers are rounded to this many shares.
LONGEST_PERIOD = 10_000


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
    if sum(whole.values()) <= LONGEST_PERIOD:
        return whole
    return apportion(exact, LONGEST_PERIOD)


def apportion(weights: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """Split `total` by weights, the largest remainders rounded up, nobody left with nothing."""
    parts = split(weights, total)
    for name in (name for name, part in parts.items() if part == 0):
        parts[max(parts, key=parts.__getitem__)] -= 1
        parts[name] = 1
    return parts


def split(weights: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """Split `total` by weights of at least 0, the largest remainders rounded up."""
    whole = sum(weights.values())
    due = {name: total * weight / whole for name, weight in weights.items()}
    parts = {name: int(quota) for name, quota in due.items()}
    left = total - sum(parts.values())
    for name in sorted(due, key=lambda name: parts[name] - due[name])[:left]:
        parts[name] += 1
    return parts
