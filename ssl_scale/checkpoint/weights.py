"""What a checkpoint knows of a model: parameters and buffers by name, whole, one at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ssl_scale.checkpoint.reader import Reader
from ssl_scale.errors import CheckpointError

KINDS = ("master", "value", "buffer")  # trained, untrained, buffers


class Shapes(ABC):
    """Parameters and buffers by name and shape, wherever their values are.

    Args:
        keys: name -> what finds the tensor.
        teacher: a teacher whose copies stand in the student's place, under the student's names.
        where: what holds them, for messages.

    Raises:
        CheckpointError: there is no such teacher.
    """

    def __init__(self, keys: Mapping[str, str], teacher: str | None, where: Path) -> None:
        self.where = where
        found = dict(keys) if teacher is None else _put_first(keys, teacher, where)
        self._keys = dict(sorted(found.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """Of all parameters and buffers, sorted."""
        return tuple(self._keys)

    def __contains__(self, name: str) -> bool:
        return name in self._keys

    def below(self, part: str) -> tuple[str, ...]:
        """Names of a part's, such as ``encoders.image``; of all parts if it is empty."""
        return tuple(name for name in self._keys if not part or f"{name}.".startswith(f"{part}."))

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""


class Weights(Shapes):
    """Parameters and buffers of an open checkpoint; nothing is read before it is asked for.

    Args:
        reader: the checkpoint.
        teacher: a teacher whose copies stand in the student's place, under the student's names.

    Raises:
        CheckpointError: the run has no such teacher.
    """

    def __init__(self, reader: Reader, teacher: str | None = None) -> None:
        self.reader = reader
        keys = {name: f"{kind}/{name}" for kind in KINDS for name in reader.names(kind)}
        super().__init__(keys, teacher, reader.folder)

    def is_buffer(self, name: str) -> bool:
        """Whether a name is that of a buffer."""
        return self._keys[name].startswith("buffer/")

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self.reader.shape(self._keys[name])

    def dtype(self, name: str) -> torch.dtype:
        """The type in which a tensor is kept."""
        return self.reader.read(self._keys[name], 0, min(1, self.numel(name))).dtype

    def numel(self, name: str) -> int:
        """How many numbers a tensor holds."""
        return torch.Size(self.shape(name)).numel()

    def read(self, name: str) -> Tensor:
        """One tensor, whole."""
        return self.reader.read_whole(self._keys[name])


def teachers_in(names: Iterable[str]) -> list[str]:
    """Which teachers names are of."""
    return sorted({name.split(".")[1] for name in names if name.startswith("teachers.")})


def _put_first(keys: Mapping[str, str], teacher: str, where: Path) -> dict[str, str]:
    prefix = f"teachers.{teacher}."
    taught = {
        name.removeprefix(prefix): key for name, key in keys.items() if name.startswith(prefix)
    }
    if not taught:
        raise CheckpointError(
            f"teacher must be one of those in {where}, {teachers_in(keys)}, but is {teacher!r}"
        )
    students = {name: key for name, key in keys.items() if not name.startswith("teachers.")}
    return {**students, **taught}
