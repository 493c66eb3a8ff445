"""Where the arrays of a batch are made, so that nothing has to be copied afterwards.

A loader worker makes them in memory that the main process sees (`slots`); everybody else in
ordinary memory, which the allocator hands out again from batch to batch.
"""

import math

import numpy as np
from numpy.typing import DTypeLike, NDArray

# What processors and copies to a GPU like.
ALIGNMENT = 64


class Buffers:
    """Ordinary memory."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        """An array with whatever the memory held."""
        return np.empty(shape, dtype)


class BlockBuffers(Buffers):
    """Arrays one after the other in a given block; ordinary memory once it is full.

    Args:
        block: ``[bytes]`` uint8.
    """

    def __init__(self, block: NDArray[np.uint8]) -> None:
        self.block, self.used = block, 0

    @property
    def room(self) -> int:
        """Bytes that are left."""
        return len(self.block) - self.used

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        """An array in the block, or outside where it does not fit."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > self.room:
            return super().empty(shape, dtype)
        start = self.used
        self.used = min(start + -(-size // ALIGNMENT) * ALIGNMENT, len(self.block))
        return self.block[start : start + size].view(dtype).reshape(shape)


HEAP = Buffers()
