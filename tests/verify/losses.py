"""Losses that a user might write: one that is right and some that are wrong."""

from typing import Any

import torch
from torch import Tensor

from ssl_scale.heads.projector import Projector
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import Count, EncoderName, Positive, ViewName
from ssl_scale.types import Loss, Step


class Agree(Objective):
    """Two crops of a sample should have equal features."""

    def __init__(
        self,
        encoder: EncoderName,
        projector: Projector,
        view: ViewName = "crops",
        scale: Positive = 1.0,
    ) -> None:
        super().__init__()
        self.encoder, self.view, self.scale = encoder, view, scale
        self.projector = projector

    def present(self, step: Step) -> Tensor:
        return step.view(self.view).present.all(1)

    def count(self, step: Step) -> Tensor:
        return self.present(step).sum()

    def crops(self, step: Step) -> Tensor:
        """Projected, ``[batch, 2, out]``; zero where absent."""
        keep = self.present(step)[:, None].expand(-1, 2)
        out: Tensor = self.projector(blank(step.student(self.encoder, self.view).pooled, keep))
        out = self.precise(out)
        return blank(out, keep) * self.scale

    def precise(self, x: Tensor) -> Tensor:
        return full_precision(x)

    def forward(self, step: Step) -> Loss:
        crops = self.crops(step)
        return Loss((crops[:, 0] - crops[:, 1]).square().sum())


class MeanOfMeans(Agree):
    """Averages over its own samples, and then over ranks."""

    def count(self, step: Step) -> Tensor:
        return self.present(step).any().long()

    def forward(self, step: Step) -> Loss:
        return Loss(super().forward(step).total / self.present(step).sum().clamp(min=1))


class CountsAbsent(Agree):
    """Divides by all samples, also by those that lack the picture."""

    def count(self, step: Step) -> Tensor:
        return torch.tensor(len(step.batch))


class LetsAbsentIn(Agree):
    """Multiplies absent samples by zero: NaN stays NaN."""

    def crops(self, step: Step) -> Tensor:
        out: Tensor = self.projector(step.student(self.encoder, self.view).pooled)
        return out * self.present(step)[:, None, None]


class DetachedGather(Agree):
    """Sees the other ranks' samples, but sends them no gradient."""

    pairs = True

    def others(self, step: Step, crops: Tensor) -> Tensor:
        start = step.offset(crops)
        others = step.gather(crops.detach())
        return torch.cat([others[:start], crops, others[start + len(crops) :]])

    def forward(self, step: Step) -> Loss:
        crops = self.crops(step)
        columns = self.others(step, crops)[:, 1]
        near = torch.exp(-(crops[:, :1] - columns).square().sum(-1))
        here = self.present(step)
        everyone = step.gather(here)
        near = torch.where(everyone, near, 0).sum(1)
        return Loss(torch.where(here, near, 0).sum())


class Gathers(DetachedGather):
    """The same with gradient."""

    def others(self, step: Step, crops: Tensor) -> Tensor:
        return step.gather(crops)


class HidesPairs(Gathers):
    """The same, but does not say that it compares samples."""

    pairs = False


class SkipsCollectives(Gathers):
    """Calls a collective only where there is something."""

    def forward(self, step: Step) -> Loss:
        if not self.count(step):
            return Loss(self.crops(step).sum())
        return super().forward(step)


class OrderMatters(Agree):
    """Weighs samples by their place in the batch."""

    def forward(self, step: Step) -> Loss:
        crops = self.crops(step)
        places = torch.arange(len(crops))[:, None]
        return Loss((places * (crops[:, 0] - crops[:, 1]).square()).sum())


class NotFiniteAtCollapse(Agree):
    """Divides by a deviation."""

    pairs = True

    def forward(self, step: Step) -> Loss:
        crops = self.crops(step)
        whole = step.gather(crops[:, 0])
        keep = step.gather(self.present(step))
        return Loss((crops / whole[keep].var(0, correction=0)).square().sum())


class OwnsParameter(Agree):
    """Holds a parameter itself."""

    def __init__(
        self, encoder: EncoderName, projector: Projector, view: ViewName = "crops"
    ) -> None:
        super().__init__(encoder, projector, view)
        self.temperature = torch.nn.Parameter(torch.ones(()))

    def forward(self, step: Step) -> Loss:
        return Loss(super().forward(step).total * self.temperature)


class HalfPrecision(Agree):
    """Adds up in whatever precision features have."""

    def precise(self, x: Tensor) -> Tensor:
        return x


class Forgets(Agree):
    """Returns a constant where there is nothing, so that no gradient arrives."""

    def forward(self, step: Step) -> Loss:
        return (
            super().forward(step)
            if self.count(step)
            else Loss(torch.zeros((), requires_grad=True) * 0)
        )


class Fp32(Agree):
    """Casts to fp32."""

    def precise(self, x: Tensor) -> Tensor:
        return x.float()


class Refuses(Agree):
    """Its constructor takes only some settings."""

    def __init__(self, encoder: EncoderName, projector: Projector, **more: Any) -> None:
        raise ValueError("scale must be even, but is odd")


class NeedsSize(Agree):
    """Has an argument that nobody could guess."""

    def __init__(self, encoder: EncoderName, projector: Projector, size: Count) -> None:
        super().__init__(encoder, projector)
        self.size = size
