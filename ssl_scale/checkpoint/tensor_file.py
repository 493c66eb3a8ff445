"""Writes tensors as a safetensors file and its checksum in one pass, durably.

The library's own writer is followed by a second pass for the checksum and a third for the flush;
a checkpoint is too large for either. What it writes the library reads:
https://huggingface.co/docs/safetensors#format
"""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
import xxhash
from torch import Tensor

# Small enough to be still in the processor's cache when it is written after it was hashed.
_BLOCK = 1 << 20
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a file whose bytes are on disk when this returns.

    Args:
        path: of the file.
        tensors: by name; flat, contiguous, in host memory.

    Returns:
        The XXH3-128 of its bytes.

    Raises:
        ValueError: a tensor is of a type that the format does not know.
    """
    digest = xxhash.xxh3_128()
    header = _header(tensors)
    with path.open("wb", buffering=0) as file:
        for whole in (memoryview(header), *map(_bytes_of, tensors.values())):
            for start in range(0, len(whole), _BLOCK):
                some = whole[start : start + _BLOCK]
                digest.update(some)
                while some:  # a write may take less than all, as on a disk that is nearly full
                    some = some[file.write(some) :]
        os.fsync(file.fileno())
    return digest.hexdigest()


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    described, at = {}, 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES or tensor.dim() != 1 or not tensor.is_contiguous():
            raise ValueError(
                f"{name!r} must be flat, contiguous and of one of {sorted(_DTYPES.values())}, but "
                f"is {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
        end = at + tensor.nbytes
        place = {"dtype": _DTYPES[tensor.dtype], "shape": [len(tensor)], "data_offsets": [at, end]}
        described[name], at = place, end
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return struct.pack("<Q", len(text)) + text


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.detach().view(torch.uint8).numpy().data
