"""The lengths that a recipe's sources have, and what micro-batches are made of them."""

from collections.abc import Mapping

from ssl_scale.data.lengths import Lengths
from ssl_scale.data.source import Source
from ssl_scale.data.split import Budget
from ssl_scale.recipe.recipe import Recipe


def lengths_of(recipe: Recipe, sources: Mapping[str, Source]) -> dict[str, Lengths]:
    """The lengths of the sources that have them, if the recipe looks at any.

    Raises:
        DataError: they were not counted, or of other contents; says how to.
    """
    if not recipe.data.needs_lengths:
        return {}
    return {
        name: Lengths(sources[name], spec.lengths)
        for name, spec in recipe.data.sources.items()
        if spec.lengths is not None
    }


def budget_of(recipe: Recipe, sources: Mapping[str, Source]) -> Budget | None:
    """Micro-batches by tokens, if the recipe asks for them."""
    if recipe.data.max_tokens is None:
        return None
    packed = frozenset(name for name, spec in recipe.data.sources.items() if spec.pack)
    return Budget(recipe.data.max_tokens, lengths_of(recipe, sources), packed)
