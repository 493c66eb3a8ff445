"""The exponential moving average of the student (mean teacher, arXiv 1703.01780; BYOL)."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ssl_scale.optim.schedule import Schedule
from ssl_scale.sharding import Shards, Slice, local_values, refresh_persistent
from ssl_scale.teachers.teacher import Teacher


class EMATeacher(Teacher):
    """Keeps ``teacher = m * teacher + (1 - m) * student`` after every optimizer step.

    Paper: Bootstrap your own latent, arXiv 2006.07733, equation 1 (``tau`` is `momentum`).

    The average is kept in fp32 whatever the training precision (in bf16 a momentum of 0.9996 never
    moves). Where parameters are stored in less, each rank averages its pieces of the optimizer's
    fp32 masters and holds no others; under ZeRO-3, whose parameters stay in pieces too, nothing is
    communicated, under stages 1 and 2 the rounded averages are, as the student's parameters are.

    Args:
        momentum: m as a function of training progress.
    """

    def __init__(self, momentum: Schedule) -> None:
        super().__init__()
        self.momentum = momentum
        self._averages: dict[str, Tensor] = {}
        self._places: dict[str, Slice] = {}

    def start(self, system: nn.Module, shards: Shards) -> None:
        """Keep fp32 averages of the parameters that are stored in less."""
        coarse = {
            name: theirs
            for name, mine, theirs in self.pairs(system)
            if local_values(mine).dtype != torch.float32  # a partitioned one's own dtype may lie
        }
        self._averages = {name: shards.master(theirs).clone() for name, theirs in coarse.items()}
        self._places = {name: shards.place(theirs) for name, theirs in coarse.items()}

    @torch.no_grad()
    def update(self, system: nn.Module, shards: Shards, progress: float) -> dict[str, float]:
        """Move towards the student by ``1 - momentum``."""
        momentum = self.momentum(progress)
        pairs = self.pairs(system)
        averages = [self._averages.get(name, local_values(mine)) for name, mine, _ in pairs]
        if averages:
            students = [shards.master(theirs) for _, _, theirs in pairs]
            torch._foreach_lerp_(averages, students, 1 - momentum)
        self._round(pairs)
        shards.complete([(mine, theirs) for name, mine, theirs in pairs if name in self._averages])
        refresh_persistent(self.parameters())
        self.copy_buffers(system)
        return {"momentum": momentum}

    def fp32_shards(self) -> dict[str, Tensor]:
        """The averages of this rank."""
        return self._averages

    def load_fp32_shards(self, values: Mapping[str, Tensor]) -> None:
        """Take over the saved averages' pieces."""
        for name, average in self._averages.items():
            place = self._places[name]
            average.copy_(values[name][place.start : place.start + place.numel])

    def _round(self, pairs: Iterable[tuple[str, nn.Parameter, nn.Parameter]]) -> None:
        """Write this rank's averages into the parameters that forward passes use."""
        for name, mine, _ in pairs:
            if name in self._averages:
                place = self._places[name]
                local_values(mine).narrow(0, place.start, place.numel).copy_(self._averages[name])
