"""All modules of a run, and the bookkeeping that lets a `Step` find them.

A system is what a recipe describes, built: encoders, shared heads, objectives with their own heads,
teachers. Every module is registered once, here; objectives hold names. It is plain PyTorch: the
engine wraps it, but `System.losses` trains under any loop.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ssl_scale import dist
from ssl_scale.data.views.view import ViewMaker
from ssl_scale.encoders.encoder import Encoder
from ssl_scale.masking.sampler import MaskSampler
from ssl_scale.objectives.objective import Objective
from ssl_scale.optim.schedule import Constant, Schedule
from ssl_scale.system.step import Answers
from ssl_scale.teachers.teacher import Teacher
from ssl_scale.types import Batch, Loss


@dataclass(frozen=True)
class NamedMask:
    """A mask sampler with the view it covers and the encoder that cuts it into tokens."""

    sampler: MaskSampler
    view: str
    encoder: str


@dataclass(frozen=True)
class Terms:
    """When and how much an objective counts.

    Args:
        weight: factor of its loss, over progress.
        start: fraction of training from which it is active.
        until: fraction of training until which it is active.
        absent: what happens, in steps without it, to parameters that only it trains: ``zero``
            gives them a zero gradient (momentum and weight decay still act), ``skip`` leaves them
            and their moments untouched.
    """

    weight: Schedule = field(default_factory=lambda: Constant(1.0))
    start: float = 0.0
    until: float = 1.0
    absent: str = "zero"

    def active(self, progress: float) -> bool:
        """Whether the objective counts at a fraction of training."""
        return self.start <= progress and (progress < self.until or self.until >= 1.0)


class System(nn.Module):
    """The modules of a run.

    Args:
        encoders: name -> encoder.
        objectives: name -> objective.
        views: name -> how it is made from a batch.
        masks: name -> sampler and what it covers.
        heads: shared heads, by name.
        teachers: name -> teacher, which has already adopted its copies.
        terms: objective -> weight and activity; the default is weight 1 throughout.
        feeds: source -> objectives that its batches feed; a source not named feeds all.
        dtype: of floating-point views: what the encoders compute in.

    Attributes:
        started: part -> what its first values were read from, as plain data; fresh ones are not in
            it.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        objectives: Mapping[str, Objective],
        views: Mapping[str, ViewMaker],
        masks: Mapping[str, NamedMask] | None = None,
        heads: Mapping[str, nn.Module] | None = None,
        teachers: Mapping[str, Teacher] | None = None,
        terms: Mapping[str, Terms] | None = None,
        feeds: Mapping[str, tuple[str, ...]] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.heads = nn.ModuleDict(heads or {})
        self.objectives = nn.ModuleDict(objectives)
        self.teachers: Mapping[str, Teacher] = nn.ModuleDict(teachers or {})  # type: ignore[assignment]
        self.views = dict(views)
        self.masks = dict(masks or {})
        self.terms = {name: (terms or {}).get(name, Terms()) for name in objectives}
        self.feeds = dict(feeds or {})
        self.dtype = dtype
        self.started: dict[str, dict[str, Any]] = {}
        self._kept: dict[str, tuple[str, ...]] = {}
        for objective in objectives.values():
            for encoder, names in objective.reads.items():
                self._kept[encoder] = tuple(sorted({*self._kept.get(encoder, ()), *names}))

    def encoder(self, name: str) -> Encoder:
        """An encoder of the student."""
        return self.encoders[name]  # type: ignore[return-value]

    def objective(self, name: str) -> Objective:
        """An objective."""
        return self.objectives[name]  # type: ignore[return-value]

    def kept(self, encoder: str) -> tuple[str, ...]:
        """Which intermediates of an encoder some objective reads."""
        return self._kept.get(encoder, ())

    def teacher_name(self, by: str | None) -> str:
        """The teacher that is meant; with one teacher, its name may be left out."""
        if by is not None:
            return by
        if len(self.teachers) != 1:
            raise ValueError(
                f"by must name one of the teachers {sorted(self.teachers)}, but is None"
            )
        return next(iter(self.teachers))

    def active(self, source: str, progress: float) -> tuple[str, ...]:
        """The objectives that a batch of a source feeds at this point, in the recipe's order."""
        fed = self.feeds.get(source, tuple(self.objectives))
        return tuple(
            name for name in self.objectives if name in fed and self.terms[name].active(progress)
        )

    def answers(
        self, batch: Batch, *, index: int = 0, progress: float = 0.0, seed: int = 0, micro: int = 0
    ) -> Answers:
        """A fresh step over a batch; ``answers(...).named(objective)`` is what `losses` passes."""
        return Answers(self, batch, index=index, progress=progress, seed=seed, micro=micro)

    def counts(self, answers: Answers) -> dict[str, Tensor]:
        """The active objectives' denominators on this rank."""
        return {
            name: self.objective(name).count(answers.named(name)).to(torch.float64)
            for name in self.active(answers.batch.source, answers.progress)
        }

    def losses(self, answers: Answers) -> dict[str, Loss]:
        """The active objectives' losses: sums over this rank's items."""
        return {
            name: self.objectives[name](answers.named(name))
            for name in self.active(answers.batch.source, answers.progress)
        }

    def loss(self, answers: Answers) -> Tensor:
        """The weighted loss of one batch, ready for ``backward()`` in a plain training loop.

        Under data parallelism that averages gradients, its gradient is that of the global batch.
        """
        counts = self.counts(answers)
        values = [
            self.terms[name].weight(answers.progress)
            * loss.total
            * (dist.world_size() / dist.reduce(counts[name]).clamp(min=1)).to(loss.total.dtype)
            for name, loss in self.losses(answers).items()
        ]
        return torch.stack(values).sum()
