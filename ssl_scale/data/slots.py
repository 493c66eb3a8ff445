"""Batches from workers to the trainer, without copies: both see the memory that they are made in.

torch sends every tensor of a batch as a file of its own, made anew each time. Here a few slots are
made once; a worker decodes into a free one and sends its number and what lies where in it. In the
main process the batch's tensors are views of the slot; when the last of them is gone, the slot is
free again. A worker that finds none free, or too small, sends tensors torch's way: whoever keeps
many batches pays in speed, and nobody waits.

The memory is a file without a name (memfd, so Linux only; elsewhere torch's way is taken). It is
not part of ``/dev/shm``, whose few megabytes in a container are a well-known end of training runs,
and a killed process leaves nothing behind. It is reserved, not claimed: it takes what is written.
"""

import io
import mmap
import os
import pickle
import weakref
from dataclasses import dataclass
from itertools import count
from multiprocessing import reduction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_scale.data.buffers import BlockBuffers

_HEAD_BYTES = 1 << 12
_FREE, _SENT, _OPENED = 0, 1, 2
_numbers = count()
_open: "weakref.WeakValueDictionary[str, Slots]" = weakref.WeakValueDictionary()


class Slots:
    """Slots of shared memory, equally many for each worker.

    Args:
        workers: how many processes fill them.
        per_worker: slots of each.
        slot_bytes: size of a slot, in address space; memory is taken where it is written to.

    Raises:
        OSError: the system has no such memory.
    """

    def __init__(self, workers: int, per_worker: int, slot_bytes: int = 1 << 30) -> None:
        self.name, self.per_worker = f"{os.getpid()}-{next(_numbers)}", per_worker
        self.slot_bytes = slot_bytes
        count = workers * per_worker
        if count > _HEAD_BYTES:
            raise OSError(f"slots must be at most {_HEAD_BYTES}, but are {count}")
        if not hasattr(os, "memfd_create"):
            raise OSError("memfd_create is missing")
        self._descriptor = os.memfd_create("ssl_scale-batches", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._size = _HEAD_BYTES + count * slot_bytes
        os.ftruncate(self._descriptor, self._size)
        self._map = mmap.mmap(self._descriptor, self._size)
        self._watched: dict[int, weakref.ref[Any]] = {}
        _open[self.name] = self

    def __getstate__(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "per_worker": self.per_worker,
            "slot_bytes": self.slot_bytes,
            "_size": self._size,
            "_descriptor": reduction.DupFd(self._descriptor),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._descriptor = state["_descriptor"].detach()
        weakref.finalize(self, os.close, self._descriptor)
        self._map = mmap.mmap(self._descriptor, self._size)
        self._watched = {}

    def forget(self, worker: int) -> None:
        """Free what a worker sent and nobody opened: an earlier pass that was broken off."""
        for slot in self._of(worker):
            if self._map[slot] == _SENT:
                self._map[slot] = _FREE

    def take(self, worker: int) -> "Slot | None":
        """A free slot of a worker, if there is one; it is taken once it is sent."""
        for slot in self._of(worker):
            if self._map[slot] == _FREE:
                return Slot(self, slot)
        return None

    def mark_sent(self, slot: int) -> None:
        """A slot's batch is on its way."""
        self._map[slot] = _SENT

    def open(self, slot: int, size: int) -> NDArray[np.uint8]:
        """A slot's first bytes; it is free again once nothing points at them."""
        self._map[slot] = _OPENED
        block, process = self.block(slot, size), os.getpid()

        def release(_: Any) -> None:
            if os.getpid() == process:  # a fork drops copies of what its parent still holds
                self._map[slot] = _FREE

        self._watched[slot] = weakref.ref(block, release)
        return block

    def block(self, slot: int, size: int) -> NDArray[np.uint8]:
        """A slot's first bytes."""
        return np.frombuffer(self._map, np.uint8, size, _HEAD_BYTES + slot * self.slot_bytes)

    def _of(self, worker: int) -> range:
        return range(worker * self.per_worker, (worker + 1) * self.per_worker)


class Slot(BlockBuffers):
    """A free slot: arrays are made in it, and it is sent with them.

    Args:
        slots: whose it is.
        number: which one.
    """

    def __init__(self, slots: Slots, number: int) -> None:
        super().__init__(slots.block(number, slots.slot_bytes))
        self._slots, self._number = slots, number

    def send(self, content: Any) -> "Parcel":
        """Pack anything that can be pickled; its tensors lie in the slot, or are moved there."""
        pickler = _Pickler(self)
        pickler.dump(content)
        self._slots.mark_sent(self._number)
        return Parcel(
            self._slots.name, self._number, self.used, pickler.file.getvalue(), pickler.others
        )


@dataclass(frozen=True, eq=False)
class Parcel:
    """What a worker sends: all of it but the tensors, which lie in a slot.

    Args:
        slots: name of the slots.
        number: of the slot.
        size: bytes used of it.
        content: pickled; tensors by their place.
        others: tensors that found no room.
    """

    slots: str
    number: int
    size: int
    content: bytes
    others: list[Tensor]

    def open(self) -> Any:
        """The content, in the process that made the slots."""
        block = _open[self.slots].open(self.number, self.size)
        return _Unpickler(self.content, block, self.others).load()

    def pin_memory(self) -> Any:
        """The content in page-locked memory; torch's thread for this calls it."""
        return self.open().pin_memory()


class _Pickler(pickle.Pickler):
    """Names tensors by their place in a slot."""

    def __init__(self, slot: Slot) -> None:
        self.file, self.others, self._slot = io.BytesIO(), list[Tensor](), slot
        self._start = int(slot.block.ctypes.data)
        super().__init__(self.file, pickle.HIGHEST_PROTOCOL)

    def persistent_id(self, value: Any) -> Any:
        """Place, dtype, shape and strides of a tensor; its number among the others if outside."""
        if not isinstance(value, Tensor):
            return None
        place = value.data_ptr() - self._start if value.numel() else 0
        if not 0 <= place < max(self._slot.used, 1):
            if value.nbytes > self._slot.room:
                self.others.append(value)
                return len(self.others) - 1
            value = self._moved(value)
            place = value.data_ptr() - self._start
        return place, value.dtype, tuple(value.shape), value.stride()

    def _moved(self, value: Tensor) -> Tensor:
        inside = torch.from_numpy(self._slot.empty((value.nbytes,), np.uint8))
        return inside.view(value.dtype).view(value.shape).copy_(value)


class _Unpickler(pickle.Unpickler):
    """Makes tensors of a block by their places."""

    def __init__(self, content: bytes, block: NDArray[np.uint8], others: list[Tensor]) -> None:
        super().__init__(io.BytesIO(content))
        self._block, self._others = block, others

    def persistent_load(self, found: Any) -> Tensor:
        """A tensor whose storage is its own part of the block."""
        if isinstance(found, int):
            return self._others[found]
        start, dtype, shape, stride = found
        items = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        items = 0 if 0 in shape else items
        part = torch.from_numpy(self._block[start : start + items * dtype.itemsize])
        return part.view(dtype).as_strided(shape, stride)
