"""Randomness that belongs to the sample, not to the rank.

A `Draw` is a batch of 64-bit seeds, one a sample. Every number drawn is a pure function of
(seed, name, index): a counter-based generator (the SplitMix64 finaliser, Steele et al., "Fast
splittable pseudorandom number generators", OOPSLA 2014), vectorised over the batch on whatever
device holds the seeds. So the same sample gets the same crops at any world size, in any batch and
after any resume, and no generator state is ever saved.
"""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def hash_name(name: str) -> int:
    """A signed 64-bit hash of a name that is the same in every process."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _shift_right(bits: Tensor, by: int) -> Tensor:
    """Logical shift; torch's own keeps the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def mix(bits: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """SplitMix64's finaliser on int64 tensors; multiplication wraps in two's complement."""
    bits = (bits ^ _shift_right(bits, 30)) * _MIX_1
    bits = (bits ^ _shift_right(bits, 27)) * _MIX_2
    return bits ^ _shift_right(bits, 31)


def combine(seeds: Int[Tensor, " n"], *words: int | Tensor) -> Int[Tensor, " n"]:
    """Derive new seeds from seeds and further words (an epoch, a hash of a name)."""
    for word in words:
        offset = word * _GOLDEN if isinstance(word, Tensor) else _wrap(word * _GOLDEN)
        seeds = mix(seeds + offset)
    return seeds


def _wrap(value: int) -> int:
    return ((value + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


@dataclass(frozen=True)
class Draw:
    """Random numbers for a batch of samples: ``[n, ...]`` for ``seeds [n]``."""

    seeds: Tensor

    def child(self, *names: str | int | Tensor) -> "Draw":
        """Independent numbers for a named purpose; a tensor ``[n]`` is a word for each sample."""
        words = (hash_name(name) if isinstance(name, str) else name for name in names)
        return Draw(combine(self.seeds, *words))

    def bits(self, name: str, *shape: int) -> Int[Tensor, "n ..."]:
        """Uniform 64-bit integers."""
        count = 1
        for size in shape:
            count *= size
        counters = torch.arange(1, count + 1, device=self.seeds.device, dtype=torch.int64)
        base = combine(self.seeds, hash_name(name))
        return mix(base[:, None] + counters[None] * _GOLDEN).reshape(-1, *shape)

    def uniform(self, name: str, *shape: int) -> Float[Tensor, "n ..."]:
        """Uniform in [0, 1), in steps of 2^-24."""
        return _shift_right(self.bits(name, *shape), 40).to(torch.float32) * 2.0**-24

    def between(self, name: str, low: float, high: float, *shape: int) -> Float[Tensor, "n ..."]:
        """Uniform in [low, high)."""
        return low + (high - low) * self.uniform(name, *shape)

    def normal(self, name: str, *shape: int) -> Float[Tensor, "n ..."]:
        """Standard normal (Box-Muller)."""
        radius = (-2 * torch.log1p(-self.uniform(f"{name}.radius", *shape))).sqrt()
        return radius * torch.cos(2 * torch.pi * self.uniform(f"{name}.angle", *shape))

    def integers(self, name: str, high: int, *shape: int) -> Int[Tensor, "n ..."]:
        """Integers in [0, high); the bias is at most high / 2^40."""
        return (
            _shift_right(self.bits(name, *shape), 24) * high >> 40
            if high < 1 << 23
            else (_shift_right(self.bits(name, *shape), 1) % high)
        )

    def chance(self, name: str, probability: float, *shape: int) -> Bool[Tensor, "n ..."]:
        """True with the given probability."""
        return self.uniform(name, *shape) < probability

    def permutation(self, name: str, length: int, *shape: int) -> Int[Tensor, "n ..."]:
        """A random order of ``range(length)`` in the last dimension."""
        return self.bits(name, *shape, length).argsort(dim=-1)
