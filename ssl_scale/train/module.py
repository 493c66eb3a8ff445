"""The one LightningModule: it owns a system and runs a step program over each step's batches."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch

from ssl_scale.data.step_batches import StepBatches
from ssl_scale.errors import SslScaleError
from ssl_scale.optim.groups import parameter_groups
from ssl_scale.optim.layerwise import Layerwise
from ssl_scale.optim.optimizer import Optimizer
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.system.build import build_system
from ssl_scale.system.step import Answers
from ssl_scale.system.system import System
from ssl_scale.train.absent import Absentees
from ssl_scale.train.ops import Ops
from ssl_scale.train.programs.plain import Plain
from ssl_scale.train.sharded import ShardedState
from ssl_scale.train.source_losses import SourceLoss
from ssl_scale.train.tally import Tally

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Progress:
    """Where training stands; what a checkpoint's counters hold.

    Args:
        total: optimizer steps of the whole run.
        done: optimizer steps done: our own counter, since engines count otherwise.
        stop_requested: set by a signal on this rank; the ranks agree at the next step.
        stopping: agreed by all ranks.
    """

    total: int
    done: int = 0
    stop_requested: bool = False
    stopping: bool = False

    @property
    def fraction(self) -> float:
        """Fraction of training done."""
        return self.done / self.total


@dataclass
class StepReport:
    """What the step just done leaves for callbacks."""

    answers: list[Answers] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    losses: list[SourceLoss] = field(default_factory=list)
    drawn: Mapping[str, int] = field(default_factory=dict)
    tokens: int = 0
    places: int = 0


class PretrainingModule(pl.LightningModule):
    """Trains any recipe.

    Args:
        recipe: the checked recipe.
        total_steps: optimizer steps of the whole run.
        done: steps that a resumed checkpoint has behind it.
    """

    def __init__(self, recipe: Recipe, total_steps: int, done: int = 0) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.recipe = recipe
        self.progress = Progress(total_steps, done)
        self.optim: Optimizer = recipe.optim.build(global_batch=recipe.data.global_batch)
        self.program = Plain()
        self.report = StepReport()
        self.tally = Tally()

    def configure_model(self) -> None:
        """Build the system; under ZeRO-3 each part is partitioned as it is built."""
        if not hasattr(self, "system"):
            torch.manual_seed(self.recipe.train.seed)
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
        self.absentees = Absentees(self.system, self.sharded)
        for teacher in self.system.teachers.values():
            teacher.start(self.system, self.sharded.master)

    def training_step(self, batches: StepBatches, batch_idx: int) -> None:
        """One optimizer step."""
        self.report = StepReport()  # the last step's features go before this step's come
        self.sharded.forget_gradients()
        for teacher in self.system.teachers.values():
            teacher.before_step(self.system, self.sharded.master, self.progress.fraction)
        self.optim.apply(self.sharded.inner, self.progress.fraction, self.progress.done)
        ops = Ops(
            self,
            batches,
            self.progress.done,
            self.progress.fraction,
            self.progress.stop_requested,
            batches.failure,
        )
        figures = self.program.run(ops)
        self.progress.done += 1
        self.progress.stopping = ops.stop
        norm = ops.gradient_norm
        if norm != norm or norm in (float("inf"), float("-inf")):
            keys = [key for micro in batches for batch in micro for key in batch.keys]
            raise SslScaleError(
                f"step {self.progress.done}: the gradient norm must be finite, but is {norm}; the "
                f"samples were {keys[:4]} and {max(len(keys) - 4, 0)} more; lower the learning "
                "rate, or set optim.clip, and start again: the newest checkpoint is sound"
            )
        for losses in ops.losses:
            self.tally.add(losses)
        self.tally.step(ops.global_counts)
        self.report = StepReport(
            answers=[answers for micro in ops.answers for answers in micro],
            figures=figures | {"grad_norm": norm, "lr": self.optim.learning_rate(ops.progress)},
            losses=ops.source_losses(),
            drawn=batches.drawn,
            tokens=batches.tokens,
            places=batches.places,
        )

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
