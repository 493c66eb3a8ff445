"""The small world in which objectives are tried; users try theirs in the same one."""

from ssl_scale.verify.world import (
    CLASSES,
    GRID,
    PATCH_VALUES,
    WIDTH,
    WORDS,
    PreparedStep,
    Samples,
    World,
    make_samples,
    poison,
)

__all__ = [
    "CLASSES",
    "GRID",
    "PATCH_VALUES",
    "WIDTH",
    "WORDS",
    "PreparedStep",
    "Samples",
    "World",
    "make_samples",
    "poison",
]
