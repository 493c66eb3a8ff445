"""The one LightningModule: it owns a system and runs a step program over each step's batches."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch

from ssl_scale.data.step_batches import StepBatches
from ssl_scale.optim.groups import parameter_groups
from ssl_scale.optim.layerwise import Layerwise
from ssl_scale.optim.optimizer import Optimizer
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.system.build import build_system
from ssl_scale.system.step import Answers
from ssl_scale.system.system import System
from ssl_scale.train.absent import Absentees
from ssl_scale.train.gate import Gate
from ssl_scale.train.guard import Guard, Outcome
from ssl_scale.train.host_memory import give_freed_memory_back
from ssl_scale.train.kept_buffers import KeptBuffers
from ssl_scale.train.lease.lease import Lease
from ssl_scale.train.ops import Ops
from ssl_scale.train.programs.plain import Plain
from ssl_scale.train.sharded import ShardedState
from ssl_scale.train.source_losses import SourceLoss
from ssl_scale.train.tally import Tally
from ssl_scale.types import DTYPES, Batch


@dataclass
class Progress:
    """Where training stands; what a checkpoint's counters hold.

    Args:
        total: optimizer steps of the whole run.
        done: optimizer steps done: our own counter, since engines count otherwise.
        passed: steps of data that were gone over without being trained on for good.
        last: steps after which this start of the run ends.
        stop_requested: set by a signal on this rank; the ranks agree at the next step.
        stopping: agreed by all ranks.
        moved_at: when this rank last got further (`time.monotonic`), also with held-out data.
    """

    total: int
    done: int = 0
    passed: int = 0
    last: int | None = None
    stop_requested: bool = False
    stopping: bool = False
    moved_at: float = field(default_factory=time.monotonic)

    @property
    def fraction(self) -> float:
        """Fraction of training done."""
        return self.done / self.total

    @property
    def drawn(self) -> int:
        """Steps of data that are behind the run."""
        return self.done + self.passed

    def move(self) -> None:
        """This rank has got further."""
        self.moved_at = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether this start of the run has nothing left to do."""
        return self.stopping or self.done >= (self.total if self.last is None else self.last)


@dataclass
class StepReport:
    """What the step just done leaves for callbacks.

    Args:
        outcome: whether it was taken.
        answers: of each batch; none if the step was not taken.
        figures: to log.
        losses: each objective's loss on each batch of this rank.
        drawn: source -> samples of the step, over all ranks.
        tokens: of the samples that are put together by length.
        places: that were made for them.
        norm: of the gradient, over all ranks.
        loss: over all ranks, where the guard wants to know it.
        is_finite: whether this rank's loss is.
        batches: of this rank, if the step was not taken.
    """

    outcome: Outcome = "taken"
    answers: list[Answers] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    losses: list[SourceLoss] = field(default_factory=list)
    drawn: Mapping[str, int] = field(default_factory=dict)
    tokens: int = 0
    places: int = 0
    norm: float = 0.0
    loss: float | None = None
    is_finite: bool = True
    batches: list[Batch] = field(default_factory=list)


class PretrainingModule(pl.LightningModule):
    """Trains any recipe.

    Args:
        recipe: the checked recipe.
        total_steps: optimizer steps of the whole run.
        done: steps that a resumed checkpoint has behind it.
        passed: steps of data that it has passed over.
        last: steps after which this start of the run ends; all of them unless told.

    Attributes:
        lease: on the run's folder, where this rank holds one; when it is lost, all ranks stop.
    """

    def __init__(
        self,
        recipe: Recipe,
        total_steps: int,
        done: int = 0,
        passed: int = 0,
        last: int | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.recipe = recipe
        self.progress = Progress(total_steps, done, passed, last)
        self.guard = Guard(recipe.train.guard)
        self.optim: Optimizer = recipe.optim.build(global_batch=recipe.data.global_batch)
        self.program = Plain()
        self.report = StepReport()
        self.tally = Tally()
        self.lease: Lease | None = None
        # Until this returns, a checkpoint is being copied from what a step would change.
        self.wait_to_change: Callable[[], None] = lambda: None

    def configure_model(self) -> None:
        """Build the system; under ZeRO-3 each part is partitioned as it is built."""
        if not hasattr(self, "system"):
            torch.manual_seed(self.recipe.train.seed)
            with give_freed_memory_back():
                self.system: System = build_system(
                    self.recipe,
                    dtype=DTYPES[self.recipe.train.precision],
                    initial=self.progress.done == 0,
                )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimizer over all trained parameters, in named groups."""
        return self.optim.build(parameter_groups(self.system, self.optim))

    @property
    def engine(self) -> Any:
        """The DeepSpeed engine."""
        return self.trainer.strategy.model

    def on_fit_start(self) -> None:
        """Look at the engine's sharded state, now that it exists, and start the teachers."""
        self.sharded = ShardedState(self.engine, self.system)
        if isinstance(self.sharded.inner, Layerwise):
            self.sharded.inner.divide(self.sharded.runs())
        self.gate = Gate(self.sharded)
        self.buffers_before = KeptBuffers(self.system)
        self.absentees = Absentees(self.system, self.sharded)
        for teacher in self.system.teachers.values():
            teacher.start(self.system, self.sharded)

    def training_step(self, batches: StepBatches, batch_idx: int) -> None:
        """One optimizer step, or none where it would spoil the run."""
        self.report = StepReport()  # the last step's features go before this step's come
        self.sharded.forget_gradients()
        if any(teacher.moves_before_step for teacher in self.system.teachers.values()):
            self.wait_to_change()
        for teacher in self.system.teachers.values():
            teacher.before_step(self.system, self.sharded, self.progress.fraction)
        self.buffers_before.keep()  # what teachers did before the step stays, taken or not
        self.optim.apply(self.sharded.inner, self.progress.fraction, self.progress.done)
        ops = Ops(
            self,
            batches,
            self.progress.done,
            self.progress.fraction,
            self.progress.stop_requested,
            batches.failure or (self.lease.failure if self.lease else None),
        )
        figures = self.program.run(ops)
        self.progress.stopping = ops.stop
        self.report = StepReport(
            outcome=ops.outcome,
            drawn=batches.drawn,
            tokens=batches.tokens,
            places=batches.places,
            norm=ops.gradient_norm,
            loss=ops.loss,
        )
        self.progress.move()
        if ops.outcome == "taken":
            self._took(ops, figures)
        else:
            self._left_out(ops, batches)

    def _took(self, ops: Ops, figures: Mapping[str, float]) -> None:
        self.progress.done += 1
        self.guard.took(ops.present(), ops.loss)
        for losses in ops.losses:
            self.tally.add(losses)
        self.tally.step(ops.global_counts)
        report = self.report
        report.answers = [answers for micro in ops.answers for answers in micro]
        rate = self.optim.learning_rate(ops.progress)
        report.figures = {**figures, "grad_norm": ops.gradient_norm, "lr": rate}
        report.losses = ops.source_losses()

    def _left_out(self, ops: Ops, batches: StepBatches) -> None:
        self.buffers_before.put_back()
        self.guard.left_out()
        self.report.is_finite = math.isfinite(float(ops.value))
        self.report.batches = [batch for micro in batches for batch in micro]
        if ops.outcome == "skipped":
            self.progress.done += 1

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that runs this module's parts.

        Whatever runs parts goes through here, as ``engine(function, ...)``: ZeRO-3's hooks on the
        root module then see where a pass begins and ends.
        """
        return function(*arguments)

    def transfer_batch_to_device(
        self, batch: StepBatches, device: torch.device, dataloader_idx: int
    ) -> StepBatches:
        """Move every micro-batch."""
        return batch.to(device)
