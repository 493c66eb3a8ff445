"""Groups of equal hashes, against a dictionary, however the work is cut."""

from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray
from ssl_scale_data_tools.dedup.grouping import contained, group_equal


def make(count: int, seed: int) -> NDArray[np.uint64]:
    """Hashes with many copies, with equal halves and with zeros."""
    random = np.random.default_rng(seed)
    pool = random.integers(0, 2**64, (max(1, count // 3), 2), np.uint64)
    pool[::5, 0] = pool[0, 0]
    pool[::7, 1] = pool[0, 1]
    pool[::11] = 0
    return pool[random.integers(0, len(pool), count)]


def naive(hashes: NDArray[np.uint64], rank: NDArray[np.float64] | None) -> list[int]:
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, (high, low) in enumerate(hashes.tolist()):
        groups[high, low].append(row)
    best = {
        key: min(rows, key=lambda row: (0 if rank is None else -rank[row], row))
        for key, rows in groups.items()
    }
    return [
        row if high == low == 0 else best[high, low]
        for row, (high, low) in enumerate(hashes.tolist())
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 500])
@pytest.mark.parametrize("part", [1 << 22, 100, 3])
@pytest.mark.parametrize("is_ranked", [False, True])
def test_groups_are_those_of_a_dictionary(count: int, part: int, is_ranked: bool) -> None:
    hashes = make(count, seed=count)
    rank = np.random.default_rng(1).integers(0, 4, count).astype(float) if is_ranked else None
    assert group_equal(hashes, rank, part).tolist() == naive(hashes, rank)


def test_contained_are_those_of_a_set() -> None:
    hashes = make(500, seed=3)
    others = np.concatenate([hashes[::9], make(300, seed=4), np.zeros((5, 2), np.uint64)])
    known = set(map(tuple, others.tolist())) - {(0, 0)}
    expected = [tuple(row) in known for row in hashes.tolist()]
    assert contained(hashes, others).tolist() == expected
    assert 50 < sum(expected) < 450
    assert not contained(hashes, others[:0]).any()
