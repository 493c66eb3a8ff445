"""Saves checkpoints while training goes on, and brings a run back from one."""

import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from ssl_scale.checkpoint.reader import Reader
from ssl_scale.errors import SslScaleError
from ssl_scale.train.best import Best
from ssl_scale.train.callbacks.observing import Observing
from ssl_scale.train.callbacks.reporting import Reporting
from ssl_scale.train.callbacks.validation import Validation
from ssl_scale.train.checkpoint.contents import capture, read_observed, restore
from ssl_scale.train.checkpoint.state import StateSource
from ssl_scale.train.checkpoint.writer import Writer
from ssl_scale.train.module import PretrainingModule
from ssl_scale.train.tally import Tally


class Checkpointing(pl.Callback):
    """Writes a checkpoint every `every` steps, at the end, and when the run is asked to stop.

    When a loss spikes it brings the run back to the newest one. Comes after all other callbacks.

    Args:
        writer: where to.
        every: optimizer steps between checkpoints.
        state: counters and descriptions to save beside the tensors, asked for at each save.
        source: the checkpoint to continue from.
        newest: gives the newest checkpoint that all ranks can read.
        reporting: is told when the run goes back.
        observing: whose state is saved too.
        validation: gives the figures that `best` looks at.
        best: keeps one more checkpoint, that of the best step.

    Attributes:
        failure: why the last save came to nothing, if it did.
        blocked_s: how long training has waited for saves.
    """

    def __init__(
        self,
        writer: Writer,
        every: int,
        state: StateSource,
        source: Reader | None,
        newest: Callable[[], Reader | None],
        reporting: Reporting,
        observing: Observing,
        validation: Validation,
        best: Best,
    ) -> None:
        self.writer = writer
        self.every = every
        self.state = state
        self.source = source
        self.newest = newest
        self.reporting = reporting
        self.observing = observing
        self.validation = validation
        self.best = best
        self.failure: str | None = None
        self.saved_at = -1
        self.blocked_s = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the checkpoint's values, once the engine has made its buffers."""
        assert isinstance(pl_module, PretrainingModule)
        pl_module.wait_to_change = self._wait_copied
        if self.source is not None:
            self._take_over(pl_module, self.source)
            self.source = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Save if it is time, or if the ranks agreed to stop."""
        assert isinstance(pl_module, PretrainingModule)
        progress = pl_module.progress
        if pl_module.report.outcome == "spiked":
            self.go_back(pl_module)
        if progress.is_over:
            trainer.should_stop = True
        is_measured = self.validation.measured_at == progress.done
        is_best = is_measured and self.best.consider(progress.done, self.validation.latest)
        if progress.done % self.every == 0 or progress.stopping or is_best:
            self.save(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what the last interval left."""
        assert isinstance(pl_module, PretrainingModule)
        self.save(pl_module)
        self._finish()

    def go_back(self, module: PretrainingModule) -> None:
        """Return to the newest checkpoint, and from there to the data that come next.

        Raises:
            SslScaleError: the run has done so too often, or there is no checkpoint.
        """
        progress, guard = module.progress, module.guard
        spike = f"step {progress.done + 1}: the loss jumped to {module.report.loss:.4g}"
        if guard.rollbacks >= guard.plan.rollbacks:
            raise SslScaleError(
                f"{spike}, and the run has gone back {guard.rollbacks} times already "
                f"(train.guard.rollbacks: {guard.plan.rollbacks}); lower optim.lr, or raise "
                "train.guard.spike, and start again: the newest checkpoint is sound"
            )
        self._finish()
        source = self.newest()
        if source is None:
            raise SslScaleError(
                f"{spike}, but {self.writer.checkpoints} holds no checkpoint to go back to; lower "
                "train.save_every, or mend the disk"
            )
        reached, skipped = progress.drawn + 1, guard.skipped
        self._take_over(module, source)
        progress.done = source.state["done"]
        progress.passed = reached - progress.done
        guard.skipped, guard.rollbacks = skipped, guard.rollbacks + 1
        module.tally = Tally()
        self.reporting.go_back(progress.done)
        pl.utilities.rank_zero_warn(
            f"{spike}; back to step {progress.done}, passing over the batches since: "
            f"{progress.passed:,} steps of data passed over so far"
        )

    def _take_over(self, module: PretrainingModule, source: Reader) -> None:
        shards = restore(module.sharded, source)
        for name, teacher in module.system.teachers.items():
            teacher.load_fp32_shards(_below(shards, f"teachers.{name}."))
        self.observing.load_state_dict(read_observed(source))
        self.best.load_state_dict(source.state.get("best", {}))
        module.guard.load_state_dict(source.state.get("guard", {}))
        module.guard.may_go_back = True
        self._pin()
        self.saved_at = source.state["done"]

    def save(self, module: PretrainingModule) -> None:
        """Copy this rank's state and hand it to the writer."""
        if self.saved_at == module.progress.done:
            return
        began = time.monotonic()
        self._finish()
        shards = {
            f"teachers.{name}.{key}": values
            for name, teacher in module.system.teachers.items()
            for key, values in teacher.fp32_shards().items()
        }
        contents = capture(module.sharded, shards, self.observing.state_dict())
        self.saved_at = module.progress.done
        self._pin()
        state = self.state() | {"best": self.best.state_dict()}
        self.writer.save(module.progress.done, contents, state)
        module.guard.may_go_back = True
        self.blocked_s += time.monotonic() - began

    def _wait_copied(self) -> None:
        began = time.monotonic()
        self.writer.wait_copied()
        self.blocked_s += time.monotonic() - began

    def _pin(self) -> None:
        self.writer.pinned = () if self.best.step is None else (self.best.step,)

    def _finish(self) -> None:
        self.failure = self.writer.join()
        if self.failure is not None:
            pl.utilities.rank_zero_warn(
                f"a checkpoint could not be written: {self.failure}; training goes on"
            )


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
