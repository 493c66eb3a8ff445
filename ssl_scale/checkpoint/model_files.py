"""Whole tensors into safetensors named as Hugging Face names them, one file in memory at a time."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Pending:
    """A tensor that is read, or made, when its file is written.

    Args:
        shape: of it.
        dtype: it is written in.
        make: gives it.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        """How many it takes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_model_files(
    folder: Path, tensors: Mapping[str, Pending], max_shard_bytes: int
) -> list[str]:
    """Write tensors by name; several files get an index.

    Args:
        folder: is there.
        tensors: by name.
        max_shard_bytes: of a file's tensors; a larger tensor has a file of its own.

    Returns:
        The names of the files that hold tensors.
    """
    shards = _cut(tensors, max_shard_bytes)
    count = len(shards)
    files = [WHOLE]
    if count > 1:
        files = [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    for file, names in zip(files, shards, strict=True):
        made = {name: _make(name, tensors[name]) for name in names}
        save_file(made, folder / file, metadata={"format": "pt"})
        del made
    if count > 1:
        total = sum(tensor.bytes for tensor in tensors.values())
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return files


def _cut(tensors: Mapping[str, Pending], max_shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    used = 0
    for name, tensor in tensors.items():
        if shards[-1] and used + tensor.bytes > max_shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += tensor.bytes
    return shards


def _make(name: str, pending: Pending) -> Tensor:
    made = pending.make().to(pending.dtype).contiguous()
    if tuple(made.shape) != pending.shape:
        raise ValueError(f"{name} must be {list(pending.shape)}, but is {list(made.shape)}")
    # A view into a larger tensor would be written with all of it.
    return made.clone() if made.untyped_storage().nbytes() > pending.bytes else made
