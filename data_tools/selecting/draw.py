"""Drawing so many samples of those that are left, evenly over all or over groups.

Who is drawn hangs on a hash of the sample's content and the seed, not on its place: the same
samples are drawn wherever they lie, and a larger draw holds every smaller one.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_DIGITS = 16


def ticket(sha256: pa.Array, seed: int) -> NDArray[np.uint64]:
    """A number for each sample, evenly spread; the smallest are drawn.

    Args:
        sha256: of the samples, in hexadecimal, N of them.
        seed: another one gives other numbers.

    Returns:
        N numbers.
    """
    if not len(sha256):
        return np.zeros(0, np.uint64)
    text = pa.concat_arrays([sha256])  # a slice's buffer would begin before it
    letters = np.frombuffer(text.buffers()[2], np.uint8, 64 * len(text)).reshape(-1, 64)
    digits = letters[:, :_DIGITS].astype(np.uint64)
    digits -= np.where(digits >= ord("a"), ord("a") - 10, ord("0")).astype(np.uint64)
    number = np.zeros(len(text), np.uint64)
    for place in range(_DIGITS):
        number = (number << np.uint64(4)) | digits[:, place]
    return mix(number ^ mix(np.array([seed], np.uint64)))


def mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection that scatters: SplitMix64's finalizer (Steele, Lea and Flood, OOPSLA 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def quotas(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """How many to draw of each group: as many of each as of any other, as far as groups have them.

    Args:
        sizes: of the groups.
        total: to draw; all are drawn if there are no more.

    Returns:
        Counts that sum to `total`; two groups that both have more differ by at most one.
    """
    if total >= sizes.sum():
        return sizes.copy()
    ordered = np.sort(sizes)
    # With the level at ordered[i], smaller groups give all and the others give the level.
    given = np.cumsum(ordered) - ordered + ordered * np.arange(len(sizes), 0, -1)
    below = int(np.searchsorted(given, total, side="right"))
    groups_left = len(sizes) - below
    level, rest = divmod(total - int(ordered[:below].sum()), groups_left)
    drawn = np.minimum(sizes, level)
    larger = np.flatnonzero(sizes > level)
    drawn[larger[:rest]] += 1
    return drawn


def draw(
    tickets: NDArray[np.uint64], total: int, groups: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Which samples are drawn.

    Args:
        tickets: of N samples.
        total: to draw; all, if there are no more.
        groups: of the samples, if each group shall be drawn from alike.
    """
    drawn = np.zeros(len(tickets), np.bool_)
    if total >= len(tickets):
        drawn[:] = True
        return drawn
    if groups is None:
        drawn[np.argpartition(tickets, total)[:total]] = True
        return drawn
    names, group = np.unique(groups, return_inverse=True)
    order = np.lexsort((tickets, group))
    sizes = np.bincount(group, minlength=len(names)).astype(np.int64)
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    drawn[order[place < np.repeat(quotas(sizes, total), sizes)]] = True
    return drawn
