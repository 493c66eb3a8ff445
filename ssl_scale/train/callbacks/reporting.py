"""What people and files see of a run: the progress bar and the lines of metrics.jsonl."""

import io
import sys
import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from tqdm import tqdm

from ssl_scale import dist
from ssl_scale.train.module import PretrainingModule, Progress
from ssl_scale.train.records import Kind, Records
from ssl_scale.train.waiting import Waiting

SECONDS_BETWEEN_LINES = 10.0
LINE = "{desc}: step {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left{postfix}"


class ProgressBar:
    """A bar with rate and time left; plain lines, seconds apart, where there is no terminal.

    Args:
        progress: where training stands.
        label: the bar's name.
    """

    def __init__(self, progress: Progress, label: str) -> None:
        self.is_terminal = sys.stderr.isatty()
        self.told_at = time.monotonic()
        self.bar = tqdm(
            total=progress.total,
            initial=progress.done,
            desc=label,
            unit="step",
            mininterval=0.2,
            dynamic_ncols=True,
            file=sys.stderr if self.is_terminal else io.StringIO(),
        )

    def advance(self) -> None:
        """One step more."""
        self.bar.update(1)
        now = time.monotonic()
        if not self.is_terminal and now - self.told_at >= SECONDS_BETWEEN_LINES:
            self.told_at = now
            self._print()

    def go_back(self, done: int) -> None:
        """Steps are to be done again."""
        self.bar.n = done
        self.bar.refresh()

    def tell(self, figures: str) -> None:
        """Show figures behind the bar."""
        self.bar.set_postfix_str(figures, refresh=False)

    def close(self) -> None:
        """Show the last state and stop."""
        if not self.is_terminal and not self.bar.disable:
            self._print()
        self.bar.close()

    def _print(self) -> None:
        state = {**self.bar.format_dict, "ncols": None, "bar_format": LINE}
        sys.stderr.write(f"{self.bar.format_meter(**state)}\n")
        sys.stderr.flush()


class Reporting(pl.Callback):
    """Writes figures every few steps and draws the progress bar on rank 0.

    Args:
        records: the run's metrics.
        every: optimizer steps between lines.
        label: the bar's name.
        waiting: for data.
    """

    def __init__(self, records: Records, every: int, label: str, waiting: Waiting) -> None:
        self.records = records
        self.every = every
        self.label = label
        self.bar: ProgressBar | None = None
        self.samples = 0
        self.sources: dict[str, int] = {}
        self.tokens = self.places = 0
        self.since = time.monotonic()
        self.waiting = waiting

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show where the run starts."""
        assert isinstance(pl_module, PretrainingModule)
        self.since = time.monotonic()
        self.waiting.read()  # what it took to start is no wait
        if dist.rank() == 0:
            self.bar = ProgressBar(pl_module.progress, self.label)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Count, and every few steps write a line."""
        assert isinstance(pl_module, PretrainingModule)
        report, progress = pl_module.report, pl_module.progress
        if report.outcome == "spiked":
            return
        for name, drawn in report.drawn.items():
            self.samples += drawn
            self.sources[name] = self.sources.get(name, 0) + drawn
        self.tokens, self.places = self.tokens + report.tokens, self.places + report.places
        if self.bar is not None:
            self.bar.advance()
        if progress.done % self.every == 0 or progress.done == progress.total:
            self._write(pl_module)

    def write(self, kind: Kind, step: int, figures: Mapping[str, float]) -> None:
        """Write figures of another kind than training's."""
        self.records.write(kind, step, figures)

    def go_back(self, done: int) -> None:
        """The run is back at an earlier step: what was told of later ones is void."""
        self.records.go_back(done)
        if self.bar is not None:
            self.bar.go_back(done)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar before the error is printed."""
        if self.bar is not None:
            self.bar.close()

    def _write(self, module: PretrainingModule) -> None:
        now = time.monotonic()
        elapsed = max(now - self.since, 1e-9)
        means = module.tally.read()
        terms = module.system.terms
        fraction = module.progress.fraction
        total = sum(
            terms[name.removeprefix("loss/")].weight(fraction) * value
            for name, value in means.items()
            if name.startswith("loss/")
        )
        waiting = self.waiting.read() / elapsed
        figures: dict[str, float] = {
            "loss": total,
            **means,
            **module.report.figures,
            "samples_per_s": self.samples / elapsed,
            "data_wait_share": waiting,
            **{f"samples/{name}": float(count) for name, count in sorted(self.sources.items())},
        }
        if self.places:
            figures["padding_share"] = 1 - self.tokens / self.places
            figures["tokens_per_s"] = self.tokens / elapsed
        self.records.write("train", module.progress.done, figures)
        if self.bar is not None:
            # Who sees a large share looks for the remedy here.
            remedy = " (see `ssl-data bench`)" if waiting > 0.3 else ""
            rate = f"{self.samples / elapsed:,.0f} samples/s"
            self.bar.tell(f"loss {total:.3f}, {rate}, {waiting:.0%} waiting for data{remedy}")
        self.samples, self.since = 0, now
        self.sources, self.tokens, self.places = {}, 0, 0
