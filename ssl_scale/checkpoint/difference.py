"""In what two checkpoints differ: counters, and tensors by name, whoever wrote them.

Values are read in stretches of equal length, so no more than two of them are in memory at once.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_scale.checkpoint.reader import Reader

STRETCH = 1 << 22  # elements read at once
# How a checkpoint was written, which says nothing about what it holds.
_MANNER = ("zero", "keep_every")


@dataclass(frozen=True)
class ValueDifference:
    """How far two tensors of a name are apart.

    Args:
        key: kind and name.
        largest: absolute difference; infinite where only one is a number.
        relative: that over the largest absolute value of the first; infinite where that is 0.
    """

    key: str
    largest: float
    relative: float


@dataclass(frozen=True)
class Difference:
    """In what two checkpoints differ.

    Args:
        counters: (name, in the first, in the second).
        only_first: tensors that the second lacks.
        only_second: tensors that the first lacks.
        shapes: (tensor, shape in the first, in the second).
        values: tensors further apart than the tolerance, worst first.
        same: how many are not.
    """

    counters: tuple[tuple[str, Any, Any], ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    shapes: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    values: tuple[ValueDifference, ...]
    same: int

    @property
    def is_none(self) -> bool:
        """Whether nothing differs."""
        found = (self.counters, self.only_first, self.only_second, self.shapes, self.values)
        return not any(found)


def compare(first: Reader, second: Reader, tolerance: float = 0.0) -> Difference:
    """Compare two open checkpoints.

    Args:
        first: one.
        second: the other.
        tolerance: tensors whose largest absolute difference is at most this are the same.

    Raises:
        CheckpointError: one is damaged.
    """
    theirs = set(second.keys)
    both = [key for key in first.keys if key in theirs]
    shapes, values = [], []
    for key in both:
        if first.shape(key) != second.shape(key):
            shapes.append((key, first.shape(key), second.shape(key)))
            continue
        found = _compare_tensor(first, second, key)
        if found.largest > tolerance:
            values.append(found)
    return Difference(
        tuple(_counters(first, second)),
        tuple(key for key in first.keys if key not in theirs),
        tuple(sorted(theirs.difference(both))),
        tuple(shapes),
        tuple(sorted(values, key=lambda value: (-value.relative, value.key))),
        len(both) - len(shapes) - len(values),
    )


def _compare_tensor(first: Reader, second: Reader, key: str) -> ValueDifference:
    largest = scale = 0.0
    total = math.prod(first.shape(key))
    for start in range(0, total, STRETCH):
        numel = min(STRETCH, total - start)
        one, other = (reader.read(key, start, numel) for reader in (first, second))
        largest = max(largest, _largest(one, other))
        scale = max(scale, float(one.double().abs().nan_to_num(0.0).amax()))
    relative = largest / scale if scale else math.inf if largest else 0.0
    return ValueDifference(key, largest, relative)


def _largest(one: Tensor, other: Tensor) -> float:
    one, other = one.double(), other.double()
    apart = (one - other).abs()
    apart[(one == other) | (one.isnan() & other.isnan())] = 0.0  # also infinities alike
    return float(torch.where(apart.isnan(), math.inf, apart).amax())


def _counters(first: Reader, second: Reader) -> Iterator[tuple[str, Any, Any]]:
    one, other = dict(_flat(first.state)), dict(_flat(second.state))
    for name in sorted({*one, *other} - set(_MANNER)):
        if one.get(name) != other.get(name):
            yield name, one.get(name), other.get(name)
    for name in sorted({*first.names("master")} & {*second.names("master")}):
        if first.counter(name) != second.counter(name):
            yield f"optimizer.{name}", first.counter(name), second.counter(name)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}" if path else str(name))
    else:
        yield path, value
