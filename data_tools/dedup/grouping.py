"""Samples of equal hashes are a group, and one of each group represents it.

Hashes are cut into parts by their first bits, so that only one part is sorted at a time: beside the
hashes, memory is 9 bytes a sample and what one part needs.
"""

import numpy as np
from numpy.typing import NDArray

PART = 1 << 22


def group_equal(
    hashes: NDArray[np.uint64], rank: NDArray[np.float64] | None = None, part: int = PART
) -> NDArray[np.int64]:
    """The row that represents each sample: its own, if it has no equal or is the best of them.

    Args:
        hashes: [N, 2]; rows of zeros are nobody's equal.
        rank: [N]; of a group the sample with the highest stays, of equal ones the first.
        part: how many are sorted at a time, about.

    Returns:
        [N] row numbers.
    """
    count = len(hashes)
    group = np.arange(count, dtype=np.int64)
    bits = min(8, max(0, (max(count, 1) - 1) // part).bit_length())
    if bits == 0:
        _group_rows(hashes, np.arange(count), rank, group)
        return group
    bucket = (hashes[:, 0] >> np.uint64(64 - bits)).astype(np.uint8)
    for number in range(1 << bits):
        _group_rows(hashes, np.flatnonzero(bucket == number), rank, group)
    return group


def _group_rows(
    hashes: NDArray[np.uint64],
    rows: NDArray[np.int64],
    rank: NDArray[np.float64] | None,
    group: NDArray[np.int64],
) -> None:
    high = hashes[rows, 0]
    order = np.argsort(high, kind="stable")
    ordered = high[order]
    repeats = np.flatnonzero(ordered[1:] == ordered[:-1])
    if not len(repeats):
        return
    # Few share their first half with another: only those are looked at closely.
    near = np.zeros(len(order), np.bool_)
    near[repeats] = near[repeats + 1] = True
    found = rows[order[near]]
    found = found[(hashes[found] != 0).any(axis=1)]
    keys = [found, *([] if rank is None else [-rank[found]]), hashes[found, 1], hashes[found, 0]]
    found = found[np.lexsort(keys)]
    is_first = np.ones(len(found), np.bool_)
    is_first[1:] = (hashes[found[1:]] != hashes[found[:-1]]).any(axis=1)
    group[found] = found[is_first][np.cumsum(is_first) - 1]


def contained(hashes: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which hashes, [N, 2], are among others, [M, 2]; rows of zeros are not."""
    present = (hashes != 0).any(axis=1)
    if not len(others):
        return np.zeros(len(hashes), np.bool_)
    known = np.unique(others[(others != 0).any(axis=1)], axis=0)
    place = np.searchsorted(known[:, 0], hashes[:, 0], side="left")
    last = np.searchsorted(known[:, 0], hashes[:, 0], side="right")
    found = np.zeros(len(hashes), np.bool_)
    # The second halves of equal first halves stand side by side: nearly always there is one.
    while (left := np.flatnonzero((place < last) & ~found & present)).size:
        found[left] = known[place[left], 1] == hashes[left, 1]
        place[left] += 1
    return found
