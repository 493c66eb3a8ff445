"""Lets a run learn the weights of its mixture, step by step."""

from typing import Any

import lightning.pytorch as pl

from ssl_scale.train.learning import Learning
from ssl_scale.train.module import PretrainingModule


class WeightLearning(pl.Callback):
    """Shows losses to what learns from them; adds the weights in force to the step's figures.

    Comes before whoever writes figures or checkpoints.

    Args:
        learning: of the run.
    """

    def __init__(self, learning: Learning) -> None:
        self.learning = learning

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Take the step just done."""
        assert isinstance(pl_module, PretrainingModule)
        report, progress = pl_module.report, pl_module.progress
        assert report.outcome != "spiked", "a run with learned weights never goes back"
        weights = self.learning.weights_at(progress.done - 1)
        report.figures |= {f"weight/{name}": weight for name, weight in weights.items()}
        self.learning.add(report.losses)
        terms = pl_module.system.terms
        self.learning.end_step(progress.done, lambda name: terms[name].weight(progress.fraction))
