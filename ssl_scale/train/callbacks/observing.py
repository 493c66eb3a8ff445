"""Connects a recipe's observers to the training loop."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from ssl_scale.data.decoding import LabelField
from ssl_scale.errors import RecipeError
from ssl_scale.part import Part, Spec
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.system.build import build_fields
from ssl_scale.system.step import Answers
from ssl_scale.train.callbacks.observer import Observer
from ssl_scale.train.callbacks.reporting import Reporting
from ssl_scale.train.module import PretrainingModule


def build_observers(recipe: Recipe, run_folder: Path, attempt: int) -> dict[str, Observer]:
    """The recipe's callbacks, told the run's place and the classes of its label fields.

    Raises:
        RecipeError: a part under ``callbacks`` is no observer, or its arguments do not fit.
    """
    fields = build_fields(recipe).items()
    classes = {name: field.num_classes for name, field in fields if isinstance(field, LabelField)}
    given = {"classes": classes, "run_folder": run_folder, "attempt": attempt}
    return {name: _build_observer(spec, given) for name, spec in recipe.callbacks.items()}


def _build_observer(spec: Spec[Part], given: Mapping[str, Any]) -> Observer:
    try:
        observer = spec.build(**given)
    except ValueError as error:
        raise RecipeError(f"{spec.path}: {error}") from error
    except KeyError as error:
        raise RecipeError(
            f"{spec.path}: must name one of the label fields {sorted(given['classes'])}, but "
            f"names {error}"
        ) from error
    if not isinstance(observer, Observer):
        raise RecipeError(f"{spec.path}: must be an Observer, but is {spec.part.__name__}")
    return observer


class Observing(pl.Callback):
    """Shows observers each step and validation batch, and writes what they tell.

    Args:
        observers: name in the recipe -> observer; figures are called ``name/figure``.
        every: optimizer steps between lines.
        reporting: where figures go.
    """

    def __init__(self, observers: Mapping[str, Observer], every: int, reporting: Reporting) -> None:
        self.observers, self.every, self.reporting = dict(observers), every, reporting

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Show the step just done; every few steps write a line."""
        assert isinstance(pl_module, PretrainingModule)
        if not self.observers or pl_module.report.outcome == "spiked":
            return
        # Observers may ask what no objective asked, and ZeRO-3 wants to see that happen.
        pl_module.engine(self._show_step, pl_module.report.answers)
        progress = pl_module.progress
        if progress.done % self.every == 0 or progress.done == progress.total:
            figures = {
                f"{name}/{figure}": value
                for name, observer in self.observers.items()
                for figure, value in observer.read_steps().items()
            }
            if figures:
                self.reporting.write("probe", progress.done, figures)

    def see_validation(self, source: str, answers: Answers) -> None:
        """Show a held-out batch."""
        for observer in self.observers.values():
            observer.see_validation(source, answers)

    def read_validation(self) -> dict[str, float]:
        """Everybody's figures on the pass that just ended; a collective."""
        return {
            f"{name}/{figure}": value
            for name, observer in self.observers.items()
            for figure, value in observer.read_validation().items()
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The observers' tensors, called ``name.tensor``; equal on all ranks."""
        return {
            f"{name}.{key}": value
            for name, observer in self.observers.items()
            for key, value in observer.state_dict().items()
        }

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Continue; an observer that is new to the run starts afresh."""
        for name, observer in self.observers.items():
            prefix = f"{name}."
            observer.load_state_dict(
                {
                    key.removeprefix(prefix): value
                    for key, value in state_dict.items()
                    if key.startswith(prefix)
                }
            )

    @torch.no_grad()
    def _show_step(self, steps: Iterable[Answers]) -> None:
        for answers in steps:
            for observer in self.observers.values():
                observer.see_step(answers)
