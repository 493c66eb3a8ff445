"""Tells of steps that were not taken, with their samples, and ends a run that takes no more."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl

from ssl_scale import dist
from ssl_scale.errors import SslScaleError
from ssl_scale.train.module import PretrainingModule

NAME = "skipped.jsonl"


class _Share(NamedTuple):
    """A rank's part of a step: whether its loss was finite, and source -> keys of its samples."""

    is_finite: bool
    samples: dict[str, list[str]]


class Guarding(pl.Callback):
    """Writes ``skipped.jsonl`` and the terminal's warnings. Comes before all others.

    Args:
        run_folder: of the run.
        attempt: number of this start of the run.
    """

    def __init__(self, run_folder: Path, attempt: int) -> None:
        self.path, self.attempt = run_folder / NAME, attempt

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Look at what became of the step.

        Raises:
            SslScaleError: on all ranks, too many steps in a row could not be taken.
        """
        assert isinstance(pl_module, PretrainingModule)
        report, guard = pl_module.report, pl_module.guard
        if report.outcome == "taken":
            return
        step = pl_module.progress.done + (report.outcome == "spiked")
        shares = dist.gather_objects(_Share(report.is_finite, _samples(pl_module)))
        if dist.rank() == 0:
            self._write(pl_module, step, shares)
        if report.outcome == "skipped" and guard.in_a_row > guard.plan.skips:
            raise SslScaleError(
                f"step {step}: loss and gradient norm must be finite, but have not been in "
                f"{guard.in_a_row} steps in a row (train.guard.skips: {guard.plan.skips}): the "
                f"norm is {report.norm}{_culprits(shares)}; lower optim.lr, or set optim.clip, "
                "and start again: the newest checkpoint is sound"
            )

    def _write(self, module: PretrainingModule, step: int, shares: list[_Share]) -> None:
        report = module.report
        samples: dict[str, list[str]] = {}
        for share in shares:
            for source, keys in share.samples.items():
                samples.setdefault(source, []).extend(keys)
        line = {
            "step": step,
            "attempt": self.attempt,
            "outcome": report.outcome,
            "loss": None if report.loss is None else str(report.loss),
            "gradient_norm": str(report.norm),
            "ranks_with_losses_not_finite": [
                rank for rank, share in enumerate(shares) if not share.is_finite
            ],
            "samples": samples,
        }
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:  # a full disk must not end the training
            pl.utilities.rank_zero_warn(f"{self.path} cannot be written: {error}")
        if report.outcome == "skipped":
            why = f"the gradient norm is {report.norm}{_culprits(shares)}"
            pl.utilities.rank_zero_warn(f"step {step} is left out: {why}; see {self.path}")


def _samples(module: PretrainingModule) -> dict[str, list[str]]:
    samples: dict[str, list[str]] = {}
    for batch in module.report.batches:
        samples.setdefault(batch.source, []).extend(key for key in batch.keys if key)
    return samples


def _culprits(shares: list[_Share]) -> str:
    """Which losses were not finite, and samples of the first of them, or of all."""
    bad = [rank for rank, share in enumerate(shares) if not share.is_finite]
    told = f", the loss of rank {', '.join(map(str, bad[:3]))} is not finite" if bad else ""
    samples = shares[bad[0] if bad else 0].samples
    source, keys = next(iter(samples.items()), ("none", []))
    more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    return f"{told}; among the samples: {source}: {', '.join(keys[:4])}{more}"
