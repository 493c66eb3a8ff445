"""The exponential moving average of the student (mean teacher, arXiv 1703.01780; BYOL)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssl_scale.optim.schedule import Schedule
from ssl_scale.sharding import local_values, refresh_persistent
from ssl_scale.teachers.teacher import Master, Teacher


class EMATeacher(Teacher):
    """Keeps ``teacher = m * teacher + (1 - m) * student`` after every optimizer step.

    Paper: Bootstrap your own latent, arXiv 2006.07733, equation 1 (``tau`` is `momentum`).

    The average is kept in fp32 whatever the training precision (in bf16 a momentum of 0.9996 never
    moves), shard by shard, without communication.

    Args:
        momentum: m as a function of training progress.
    """

    def __init__(self, momentum: Schedule) -> None:
        super().__init__()
        self.momentum = momentum
        self._masters: dict[str, Tensor] = {}

    def start(self, system: nn.Module, master: Master) -> None:
        """Keep fp32 copies of the parameters that are stored in less."""
        self._masters = {
            name: master(theirs).clone()
            for name, mine, theirs in self.pairs(system)
            if local_values(mine).dtype != torch.float32  # a partitioned one's own dtype may lie
        }

    @torch.no_grad()
    def update(self, system: nn.Module, master: Master, progress: float) -> dict[str, float]:
        """Move towards the student by ``1 - momentum``."""
        momentum = self.momentum(progress)
        pairs = self.pairs(system)
        averages = [self._masters.get(name, local_values(mine)) for name, mine, _ in pairs]
        if averages:
            students = [master(theirs) for _, _, theirs in pairs]
            torch._foreach_lerp_(averages, students, 1 - momentum)
        for name, mine, _ in pairs:
            if name in self._masters:
                local_values(mine).copy_(self._masters[name])
        refresh_persistent(self.parameters())
        self.copy_buffers(system)
        return {"momentum": momentum}

    def fp32_shards(self) -> dict[str, Tensor]:
        """The averages of parameters stored in less than fp32."""
        return self._masters

    def load_fp32_shards(self, shards: Mapping[str, Any]) -> None:
        """Take over saved averages."""
        for name, values in shards.items():
            if name in self._masters:
                self._masters[name].copy_(values)
