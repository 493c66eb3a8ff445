"""Losses and metrics on held-out sources, every so many steps."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch

from ssl_scale import dist
from ssl_scale.data.step_batches import StepBatches
from ssl_scale.train.callbacks.observing import Observing
from ssl_scale.train.callbacks.reporting import Reporting
from ssl_scale.train.module import PretrainingModule
from ssl_scale.train.tally import Tally


class Validation(pl.Callback):
    """Runs every validation source once, all samples exactly once over the ranks.

    Args:
        sources: name -> makes the finite stream of this rank's batches, one a step; equally many on
            each rank.
        every: optimizer steps between passes; 0 means only at the end.
        reporting: where figures go.
        observing: is shown every batch, and adds its figures.
    """

    def __init__(
        self,
        sources: Mapping[str, Callable[[], Iterable[StepBatches]]],
        every: int,
        reporting: Reporting,
        observing: Observing | None = None,
    ) -> None:
        self.sources = sources
        self.every = every
        self.reporting = reporting
        self.observing = observing
        self.latest: dict[str, float] = {}
        self.measured_at = -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Validate if it is time."""
        assert isinstance(pl_module, PretrainingModule)
        if pl_module.report.outcome == "spiked":
            return
        done = pl_module.progress.done
        last = done == pl_module.progress.total
        if self.sources and (last or (self.every and done % self.every == 0)):
            figures = pl_module.engine(self._measure, pl_module)
            self.latest, self.measured_at = figures, done
            self.reporting.write("validation", done, figures)

    @torch.no_grad()
    def _measure(self, module: PretrainingModule) -> dict[str, float]:
        module.eval()
        figures: dict[str, float] = {}
        for name, stream in self.sources.items():
            tally = Tally()
            for step in stream():
                module.progress.move()
                answers = module.system.answers(
                    step[0][0].to(module.device),
                    index=module.progress.done,
                    progress=module.progress.fraction,
                    seed=module.recipe.train.seed,
                )
                local = module.system.counts(answers)
                failed = torch.tensor(float(step.failure is not None), dtype=torch.float64)
                packed = dist.reduce(torch.stack([*local.values(), failed.to(module.device)]))
                if packed[-1] > 0:
                    dist.fail_together(step.failure)
                tally.add(module.system.losses(answers))
                tally.step(dict(zip(local, packed[:-1], strict=True)))
                if self.observing is not None:
                    self.observing.see_validation(name, answers)
            figures |= {f"{name}/{figure}": value for figure, value in tally.read().items()}
        if self.observing is not None:
            figures |= self.observing.read_validation()
        module.train()
        return figures
