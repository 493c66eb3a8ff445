"""What every teacher is: a second copy of some parts, that trains by other means than gradients.

A teacher mirrors the names of what it copies (``encoders.image``, ``objectives.byol.projector``),
so a parameter's path below the teacher is its path below the system. Copies are built a second time
rather than deep-copied: under ZeRO-3 a built part is already partitioned.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeVar

from torch import Tensor, nn

from ssl_scale.part import Part
from ssl_scale.sharding import Shards, local_values, refresh_persistent

T = TypeVar("T", bound="Teacher")


class Teacher(nn.Module, Part, ABC):
    """Copies of parts; always in evaluation mode, never with gradients."""

    moves_before_step: ClassVar[bool] = False  # whether `before_step` may change it
    _paired: tuple[nn.Module, list[tuple[str, nn.Parameter, nn.Parameter]]] | None = None

    def adopt(self, builders: Mapping[str, Callable[[], nn.Module]]) -> None:
        """Build a copy of each named part, without gradients."""
        for path, build in builders.items():
            *rooms, name = path.split(".")
            room: nn.Module = self
            for word in rooms:
                if not hasattr(room, word):
                    room.add_module(word, nn.ModuleDict())
                room = getattr(room, word)
            room.add_module(name, build())
        self.requires_grad_(False)
        self.train(False)

    def part(self, path: str) -> nn.Module:
        """The copy of a part.

        Raises:
            KeyError: this teacher does not mirror it.
        """
        try:
            return self.get_submodule(path)
        except AttributeError:
            mirrored = sorted(name for name, _ in self.named_children())
            raise KeyError(f"the teacher holds no copy of {path!r}, only {mirrored}") from None

    def train(self: T, mode: bool = True) -> T:
        """Teachers stay in evaluation mode, whatever the rest of the module does."""
        return super().train(False)

    def pairs(self, system: nn.Module) -> list[tuple[str, nn.Parameter, nn.Parameter]]:
        """(name, teacher's parameter, student's parameter), in a fixed order.

        Looked up once for each student: walking all modules in every step costs more than the
        average of a small model.
        """
        if self._paired is None or self._paired[0] is not system:
            students = dict(system.named_parameters())
            found = [(name, mine, students[name]) for name, mine in self.named_parameters()]
            self._paired = (system, found)
        return self._paired[1]

    def copy_buffers(self, system: nn.Module) -> None:
        """Take over the student's buffers (batch statistics); a teacher's own state stays."""
        students = dict(system.named_buffers())
        for name, buffer in self.named_buffers():
            if name not in self._buffers:
                buffer.copy_(students[name])

    def copy_student(self, system: nn.Module) -> None:
        """Start from the student's values, shard by shard."""
        for _, mine, theirs in self.pairs(system):
            local_values(mine).copy_(local_values(theirs))
        refresh_persistent(self.parameters())
        self.copy_buffers(system)

    @abstractmethod
    def start(self, system: nn.Module, shards: Shards) -> None:
        """Begin, once the sharded optimizer exists.

        Args:
            system: the student.
            shards: this rank's pieces of it.
        """

    def before_step(self, system: nn.Module, shards: Shards, progress: float) -> None:
        """Called before a step's first forward pass, at this fraction of training."""

    @abstractmethod
    def update(self, system: nn.Module, shards: Shards, progress: float) -> dict[str, float]:
        """Called after every optimizer step; returns figures to log."""

    def fp32_shards(self) -> dict[str, Tensor]:
        """Parameter name -> this rank's piece in fp32, where the parameter itself is coarser."""
        return {}

    def load_fp32_shards(self, values: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint.

        Args:
            values: parameter name -> `local_values` as they were saved, in fp32.
        """
