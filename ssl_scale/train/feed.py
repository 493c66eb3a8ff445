"""From a recipe's data section to this rank's stream of batches."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ssl_scale import dist
from ssl_scale.data.loader import TrainingStream, ValidationStream
from ssl_scale.data.mixture import Mixture
from ssl_scale.data.source import Source
from ssl_scale.data.step_batches import StepBatches
from ssl_scale.data.workers import steps_with_failure
from ssl_scale.errors import UnboundDataError
from ssl_scale.recipe.data_plan import SourceSpec, ValidationSpec
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.system.build import build_fields
from ssl_scale.train.budgets import budget_of


@dataclass(frozen=True)
class Opened:
    """The data sets of a recipe, their indexes read."""

    training: Mapping[str, Source]
    validation: Mapping[str, Source]


def open_sources(recipe: Recipe) -> Opened:
    """Open every source; whatever is missing is found here, before anything is built.

    Raises:
        DataError: a data set is missing, empty, damaged, or lacks a field.
        UnboundDataError: a data set has no path.
    """
    fields = build_fields(recipe)
    cache = recipe.data.cache.cache()

    def opened(name: str, spec: SourceSpec | ValidationSpec, shuffle: bool) -> Source:
        return Source(
            name,
            folder_of(name, spec),
            {field: fields[field] for field in spec.fields},
            seed=recipe.train.seed,
            streams=recipe.data.streams,
            window=recipe.data.window,
            shuffle=shuffle,
            cache=cache,
            checksums=recipe.data.checksums,
        )

    return Opened(
        {name: opened(name, spec, True) for name, spec in recipe.data.sources.items()},
        {name: opened(name, spec, False) for name, spec in recipe.data.validation.items()},
    )


def folder_of(name: str, spec: SourceSpec | ValidationSpec) -> str:
    """Where a source's shards are: a path or an address."""
    if spec.path is None:
        raise UnboundDataError(
            f"source {name!r}: data set {spec.role!r} must be bound to a folder, but is not; add "
            f"--data {spec.role}=PATH"
        )
    return spec.path


def total_steps(recipe: Recipe, opened: Opened) -> int:
    """Optimizer steps of the whole run."""
    return recipe.num_steps({name: len(source) for name, source in opened.training.items()})


def training_loader(
    recipe: Recipe,
    opened: Opened,
    mixture: Mixture,
    start: int,
    stop: int | None,
    run_folder: Path,
) -> Generator[StepBatches, None, None]:
    """This rank's batches of the steps from `start` to before `stop`, or without end.

    A step that cannot be made comes last, as padding with its failure.
    """
    stream = TrainingStream(
        opened.training,
        mixture,
        accumulate=recipe.train.accumulate,
        rank=dist.rank(),
        world_size=dist.world_size(),
        start_step=start,
        end_step=stop,
        bad_samples=recipe.data.bad_samples,
        quarantine=run_folder / "quarantine",
        budget=budget_of(recipe, opened.training),
    )
    return steps_with_failure(stream, recipe.data.num_workers, pin=torch.cuda.is_available())


def validation_stream(
    recipe: Recipe, opened: Opened, name: str, run_folder: Path
) -> Iterator[StepBatches]:
    """This rank's batches of one held-out source, one a step; equally many on each rank."""
    stream = ValidationStream(
        {name: opened.validation[name]},
        recipe.data.global_batch,
        rank=dist.rank(),
        world_size=dist.world_size(),
        bad_samples=recipe.data.bad_samples,
        quarantine=run_folder / "quarantine",
    )
    limit = recipe.data.validation[name].num_samples
    for number, step in enumerate(steps_with_failure(stream)):
        if limit is not None and number * recipe.data.global_batch >= limit:
            return
        yield step
