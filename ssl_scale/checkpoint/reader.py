"""Reading any slice of any tensor of a checkpoint, whatever world size wrote it."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ssl_scale.checkpoint import layout
from ssl_scale.errors import CheckpointError


class Reader:
    """An open checkpoint. Each file's checksum is verified once, before its first byte is used.

    Args:
        folder: a checkpoint.

    Raises:
        CheckpointError: the folder is not a valid checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commit = layout.read_commit(folder)
        self.state: dict[str, Any] = self.commit["state"]
        self._files: dict[str, Any] = {}
        self._sound: set[str] = set()
        self._pieces: dict[str, list[tuple[int, str]]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._counters: dict[str, float] = {}
        self._kinds: dict[str, list[str]] = {}
        for rank in range(self.commit["world_size"]):
            self._read_page(f"{layout.part_name(rank)}.json")
        for key in self._pieces:
            kind, name = key.split("/", 1)
            self._kinds.setdefault(name, []).append(kind)
        for pieces in self._pieces.values():
            pieces.sort()

    def _read_page(self, name: str) -> None:
        try:
            page = json.loads(self._verified(name).read_bytes())
            self._counters.update(page["counters"])
            for key, place in page["tensors"].items():
                self._pieces.setdefault(key, []).append((place["start"], page["file"]))
                self._shapes[key] = tuple(place["shape"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{self.folder / name}: must describe a part, but does not ({error!r})"
            ) from error

    @property
    def keys(self) -> list[str]:
        """``kind/name`` of every tensor."""
        return sorted(self._pieces)

    def names(self, kind: str) -> Iterator[str]:
        """Names of the tensors of a kind."""
        return (key.split("/", 1)[1] for key in self._pieces if key.startswith(f"{kind}/"))

    def kinds(self, name: str) -> list[str]:
        """Which kinds of values a parameter has."""
        return self._kinds.get(name, [])

    def counter(self, name: str) -> float | None:
        """The optimizer's step counter of a parameter."""
        return self._counters.get(name)

    def shape(self, key: str) -> tuple[int, ...]:
        """The whole tensor's shape."""
        if key not in self._shapes:
            raise CheckpointError(
                f"{self.folder}: must hold {key!r}, but does not; it belongs to another recipe"
            )
        return self._shapes[key]

    def read(self, key: str, start: int, numel: int) -> Tensor:
        """Elements ``start .. start + numel`` of the flattened tensor.

        Raises:
            CheckpointError: the checkpoint lacks the tensor or some of it, or a file is damaged.
        """
        self.shape(key)
        if numel == 0:  # of a tensor so small that this rank has none of it
            return torch.empty(0)
        found: list[Tensor] = []
        at, end = start, start + numel
        for begin, file in self._pieces[key]:
            if at >= end:
                break
            length = self._length(file, key)
            if begin <= at < begin + length:
                stop = min(end, begin + length)
                found.append(self._open(file).get_slice(key)[at - begin : stop - begin])
                at = stop
        if at < end:
            raise CheckpointError(f"{self.folder}: elements {at}..{end} of {key!r} are missing")
        return torch.cat(found) if len(found) != 1 else found[0]

    def read_whole(self, key: str) -> Tensor:
        """The whole tensor, in its shape."""
        shape = self.shape(key)
        return self.read(key, 0, math.prod(shape)).view(shape)

    def check_tiles(self) -> None:
        """Check that the pieces of every tensor meet without gap or overlap.

        Raises:
            CheckpointError: those of some tensor do not.
        """
        for key, pieces in self._pieces.items():
            at = 0
            lengths = [(begin, self._length(file, key)) for begin, file in pieces]
            for begin, length in (*lengths, (math.prod(self._shapes[key]), 0)):
                if begin != at:
                    what = "missing" if begin > at else "there twice"
                    raise CheckpointError(
                        f"{self.folder}: every element of {key!r} must be there once, but "
                        f"{min(at, begin)}..{max(at, begin)} are {what}"
                    )
                at = begin + length

    def _length(self, file: str, key: str) -> int:
        try:
            return int(self._open(file).get_slice(key).get_shape()[0])
        except SafetensorError as error:
            raise CheckpointError(
                f"{self.folder / file}: must hold {key!r}, but does not ({error})"
            ) from error

    def verify(self, rank: int = 0, world_size: int = 1) -> None:
        """Check the bytes of every file, or of one rank's share.

        Args:
            rank: whose share; its own part is in it, also where each host has a disk of its own.
            world_size: ranks that share the files, so that none reads what all have written.

        Raises:
            CheckpointError: some file is damaged.
        """
        for number, name in enumerate(sorted(self.commit["files"])):
            is_own = Path(name).stem == layout.part_name(rank)
            if is_own or number % world_size == rank:
                self._verified(name)

    def _open(self, file: str) -> Any:
        if file not in self._files:
            self._files[file] = safe_open(self._verified(file), framework="pt")
        return self._files[file]

    def _verified(self, name: str) -> Path:
        path = self.folder / name
        if name not in self.commit["files"]:
            raise CheckpointError(f"{path}: must be named in {layout.COMMIT}, but is not")
        if name in self._sound:
            return path
        found = layout.checksum(path)
        if found != self.commit["files"][name]["xxh3"]:
            raise CheckpointError(f"{path}: the bytes on disk are not those that were written")
        self._sound.add(name)
        return path


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All parameters, whole and in fp32, and buffers, by name: what evaluation needs."""
    reader = Reader(folder)
    return {
        name: reader.read_whole(f"{kind}/{name}")
        for kind in ("master", "value", "buffer")
        for name in reader.names(kind)
    }
