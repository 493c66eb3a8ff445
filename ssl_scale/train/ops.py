"""The verbs of a step program: what it may do with one optimizer step's batches."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ssl_scale import dist
from ssl_scale.errors import SslScaleError
from ssl_scale.rng import combine
from ssl_scale.system.step import Answers
from ssl_scale.train.agreement import Agreement
from ssl_scale.train.guard import Outcome
from ssl_scale.train.source_losses import SourceLoss
from ssl_scale.types import Batch, Loss

if TYPE_CHECKING:
    from ssl_scale.train.module import PretrainingModule


class Ops:
    """One optimizer step.

    Args:
        module: the module in training.
        batches: micro-batches, each a list of one batch a source.
        index: optimizer steps done before this one.
        progress: fraction of training done.
        stop: whether this rank was asked to stop; the ranks agree in `share_counts`.
        failure: why this rank's batches are padding; the ranks hear of it in `share_counts`.
    """

    def __init__(
        self,
        module: "PretrainingModule",
        batches: Iterable[Sequence[Batch]],
        index: int,
        progress: float,
        stop: bool = False,
        failure: SslScaleError | None = None,
    ) -> None:
        self.module = module
        self.system = module.system
        self.index = index
        self.progress = progress
        self.stop, self.failure = stop, failure
        seed = module.recipe.train.seed
        self.answers = [
            [
                self.system.answers(batch, index=index, progress=progress, seed=seed, micro=micro)
                for batch in micro_batch
            ]
            for micro, micro_batch in enumerate(batches)
        ]
        self.global_counts: dict[str, Tensor] = {}
        self.counts: list[Mapping[str, Tensor]] = []
        self.losses: list[dict[str, Loss]] = []
        self.value = torch.zeros((), dtype=torch.float64, device=module.device)
        self.gradient_norm = 0.0
        self.loss: float | None = None
        self.outcome: Outcome = "taken"

    def share_counts(self) -> None:
        """Sum every objective's denominator over micro-batches and ranks, in one collective.

        What is summed has one size whatever the step takes, so that ranks that disagree hear of it.

        Raises:
            SslScaleError: on all ranks, what one of them met when it made its batches, or that they
                do not take the same.
        """
        counts: dict[str, Tensor] = {}
        self.counts = [self.system.counts(answers) for answers in self._all()]
        for of_batch in self.counts:
            for name, count in of_batch.items():
                counts[name] = counts[name] + count if name in counts else count
        device = self.module.device
        none = torch.zeros((), dtype=torch.float64, device=device)
        agreement = Agreement([[each.batch.source for each in micro] for micro in self.answers])
        flags = [self.stop, self.failure is not None, *agreement.summands]
        packed = dist.reduce(
            torch.cat(
                [
                    torch.stack([counts.get(name, none) for name in self.system.objectives]),
                    torch.tensor(flags, dtype=torch.float64, device=device),
                ]
            )
        )
        stop, failed, *sums = packed[len(self.system.objectives) :].tolist()
        if failed:
            dist.fail_together(self.failure)
        agreement.check(sums, self.index)
        if not counts:
            sources = sorted({answers.batch.source for answers in self._all()})
            raise SslScaleError(
                f"step {self.index}: {sources} must feed an active objective, but at progress "
                f"{self.progress:.3f} none of theirs is; see from/until under objectives"
            )
        summed = dict(zip(self.system.objectives, packed, strict=False))
        self.global_counts = {name: summed[name] for name in counts}
        self.stop = bool(stop)

    def forward(self, micro: int) -> Tensor:
        """A micro-batch's weighted losses over global denominators, with gradient.

        Averaged over ranks, and added up over micro-batches, it is the loss of the global batch.
        """
        value: Tensor = self.module.engine(self._forward, micro)
        return value

    def _forward(self, micro: int) -> Tensor:
        self._seed(micro)
        world_size = dist.world_size()
        terms = []
        for answers in self.answers[micro]:
            losses = self.system.losses(answers)
            self.losses.append(losses)
            for name, loss in losses.items():
                weight = self.system.terms[name].weight(self.progress)
                scale = weight * world_size / self.global_counts[name].clamp(min=1)
                terms.append(loss.total * scale.to(loss.total.dtype))
        return torch.stack(terms).sum()

    def backward(self, value: Tensor) -> None:
        """Add a value's gradients.

        If it is not finite, no gradient is either: so every rank learns of it from their norm.
        """
        own = value.detach()
        self.value += own
        self.module.engine.backward(value * torch.where(torch.isfinite(own), 1.0, math.nan))

    def step(self) -> bool:
        """Let the optimizer step once, absent parts as declared; whether it could be taken."""
        guard, gate = self.module.guard, self.module.gate
        if guard.watches_losses:
            self.loss = float(dist.reduce(self.value)) / dist.world_size()
            gate.is_shut = guard.is_spike(self.present(), self.loss)
        kept = self.module.absentees.keep(self.present())
        self.module.wait_to_change()
        self.module.engine.step()
        self.gradient_norm = self.module.sharded.gradient_norm()
        self.module.absentees.put_back(kept)
        if not math.isfinite(self.gradient_norm):
            self.outcome = "skipped"
        elif gate.is_shut:
            self.outcome = "spiked"
        gate.is_shut = False
        return self.outcome == "taken"

    def update_teachers(self) -> dict[str, float]:
        """Move every teacher; returns figures to log."""
        figures: dict[str, float] = {}
        for name, teacher in self.system.teachers.items():
            moved = teacher.update(self.system, self.module.sharded, self.progress)
            figures.update({f"teacher/{name}/{key}": value for key, value in moved.items()})
        return figures

    def source_losses(self) -> list[SourceLoss]:
        """Each objective's loss on each batch of this rank."""
        return [
            SourceLoss(answers.batch.source, name, loss.total.detach(), counts[name])
            for answers, counts, losses in zip(self._all(), self.counts, self.losses, strict=True)
            for name, loss in losses.items()
        ]

    def present(self) -> tuple[str, ...]:
        """Objectives that took part in this step."""
        return tuple(self.global_counts)

    def _all(self) -> list[Answers]:
        return [answers for micro in self.answers for answers in micro]

    def _seed(self, micro: int) -> None:
        words = torch.tensor([self.module.recipe.train.seed])
        mixed = combine(words, self.index, micro, dist.rank())
        seed = int(mixed[0]) & ((1 << 63) - 1)
        # Not `torch.manual_seed`: for every kind of device that is absent it keeps a stack trace.
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed(seed)
