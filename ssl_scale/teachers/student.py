"""The student as it was at one point of its training."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ssl_scale.part import Probability
from ssl_scale.sharding import Shards
from ssl_scale.teachers.teacher import Teacher


class StudentTeacher(Teacher):
    """A copy of the student, taken once.

    Until then it is the student as training began; an objective that wants the copy alone is given
    the same fraction as its ``from``.

    Args:
        at: fraction of training at which it is taken; 0 means the untrained student, or the weights
            that it starts from.
    """

    moves_before_step = True
    taken: Tensor

    def __init__(self, at: Probability = 0.0) -> None:
        super().__init__()
        self.at = at
        self.register_buffer("taken", torch.zeros((), dtype=torch.bool))
        self._is_taken: bool | None = None  # read off the buffer once: that may wait for a device

    def start(self, system: nn.Module, shards: Shards) -> None:
        """There is nothing to begin with."""

    def load_fp32_shards(self, values: Mapping[str, Tensor]) -> None:
        """The checkpoint tells whether the copy was taken."""
        self._is_taken = None

    @torch.no_grad()
    def before_step(self, system: nn.Module, shards: Shards, progress: float) -> None:
        """Take the copy when its time has come: of what forward passes use."""
        if progress < self.at:
            return
        if self._is_taken is None:
            self._is_taken = bool(self.taken)
        if self._is_taken:
            return
        self.copy_student(system)
        self.taken.fill_(True)
        self._is_taken = True

    def update(self, system: nn.Module, shards: Shards, progress: float) -> dict[str, float]:
        """It stays."""
        return {}
