"""Writes down what the parts of a run started from."""

import json
from pathlib import Path

import lightning.pytorch as pl

from ssl_scale.train.environment import write_atomically
from ssl_scale.train.module import PretrainingModule

WARM_START_NAME = "warm_start.json"


class Starting(pl.Callback):
    """Writes ``warm_start.json`` where parts took first values from somewhere; a resume does not.

    Args:
        run_folder: of the run.
    """

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what the system's building has told."""
        assert isinstance(pl_module, PretrainingModule)
        started = pl_module.system.started
        if started and trainer.is_global_zero:
            text = json.dumps(started, indent=1) + "\n"
            write_atomically(self.run_folder / WARM_START_NAME, text)
