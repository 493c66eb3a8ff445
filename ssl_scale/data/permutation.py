"""A keyed bijection of a range onto itself, without a table.

A Feistel network on the next power of four, walked along its cycle until it lands inside the range
(Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002): no buffer, no table, O(1)
for any element.
"""

import numpy as np

from ssl_scale.data.seeds import Bits, Whole, combine

# Three rounds would do for a cipher on large domains (Luby and Rackoff); on the small ones of
# short blocks a few more are needed before every arrangement is about as likely.
_ROUNDS = 6


def permute(indices: Whole, sizes: Whole, keys: Bits) -> Whole:
    """Send each index to another place of ``range(size)``, one-to-one for a given key and size.

    Args:
        indices: in ``[0, size)``.
        sizes: length of the range that each index lives in.
        keys: equal keys and sizes mean the same permutation.
    """
    values = indices.astype(np.uint64)
    limits = sizes.astype(np.uint64)
    bits = np.frexp((sizes - 1).astype(np.float64))[1]
    halves = np.maximum((bits + 1) // 2, 1).astype(np.uint64)
    walking = np.arange(len(values))
    while len(walking):
        values[walking] = _feistel(values[walking], halves[walking], keys[walking])
        walking = walking[values[walking] >= limits[walking]]
    return values.astype(np.int64)


def _feistel(values: Bits, halves: Bits, keys: Bits) -> Bits:
    """A permutation of ``range(4 ** half)`` for each value."""
    low = (np.uint64(1) << halves) - np.uint64(1)
    left, right = values >> halves, values & low
    for turn in range(_ROUNDS):
        # Keys are hashes, so neighbours of a key are as good as others.
        left, right = right, left ^ (combine(keys + np.uint64(turn), right) & low)
    return (left << halves) | right
