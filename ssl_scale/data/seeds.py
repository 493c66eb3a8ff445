"""The 64-bit hashing of `ssl_scale.rng` in numpy, for what runs before there are tensors.

`combine` gives bit for bit what `ssl_scale.rng.combine` gives, so a seed made in a loader worker
and one derived on the device belong to one family. This file imports no torch: the order of a data
set can be asked for by tools that never load it.
"""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
Whole = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_WORD = (1 << 64) - 1


def mix(bits: Bits) -> Bits:
    """SplitMix64's finaliser; unsigned arithmetic wraps."""
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))


def as_bits(word: int | Whole | Bits) -> Bits:
    """Integers of either sign as unsigned words, at least one-dimensional."""
    if isinstance(word, int):
        return np.array([word & _WORD], dtype=np.uint64)
    return np.atleast_1d(word).astype(np.uint64, copy=False)


def combine(seeds: int | Whole | Bits, *words: int | Whole | Bits) -> Bits:
    """Derive seeds from seeds and further words; arrays broadcast against each other."""
    bits = as_bits(seeds)
    for word in words:
        bits = mix(bits + as_bits(word) * _GOLDEN)
    return bits


def hash_names(names: Iterable[str]) -> Whole:
    """`ssl_scale.rng.hash_name` of each of many names."""
    digests = [blake2b(name.encode(), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), "<i8").astype(np.int64, copy=False)


def sample_seeds(run_seed: int, epochs: Whole, key_hashes: Whole) -> Whole:
    """The seed of each sample in each epoch: all its randomness derives from it."""
    return combine(run_seed, epochs, key_hashes).view(np.int64)
