"""Timing a recipe's loader: whole steps for each number of workers, and each field by itself."""

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from ssl_scale.data.decoding import UndecodableError
from ssl_scale.data.source import Source
from ssl_scale.errors import DataError
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.train import feed
from ssl_scale.train.mixing import RunMixture

_TIMED_SAMPLES = 200
# Shards that are forgotten at a cold start; a run of seconds opens fewer.
_MOST_FORGOTTEN = 10_000


@dataclass(frozen=True)
class Speed:
    """What a number of workers does.

    Args:
        workers: loader processes; with 0 the training process makes its own batches.
        first_s: seconds until the first step was there, with the workers' start.
        samples: made after it.
        seconds: that they took.
        read_ms: of the workers' time, all together, spent reading.
        decode_ms: spent decoding.
        collate_ms: spent putting batches together.
        read_bytes: bytes of members.
        bad: samples that did not decode and were replaced.
    """

    workers: int
    first_s: float
    samples: int
    seconds: float
    read_ms: float
    decode_ms: float
    collate_ms: float
    read_bytes: int
    bad: int

    @property
    def samples_per_s(self) -> float:
        """Of one rank."""
        return self.samples / self.seconds


def numbers_of_workers(own: int, cpus: int, told: Sequence[int] | None) -> list[int]:
    """Which to try: what was told, or none, the recipe's, and doublings up to the CPUs."""
    if told:
        return sorted(set(told))
    doublings = [1 << power for power in range(cpus.bit_length()) if 1 << power <= cpus]
    return sorted({0, own, *doublings, cpus})


class LoaderBench:
    """A recipe's training data, opened once.

    Args:
        recipe: whose; learned weights stay what they are at the start.
        seconds: of each measurement.
        cold: whether the system's memory of the shards is dropped before each.
    """

    def __init__(self, recipe: Recipe, seconds: float, cold: bool) -> None:
        mixture = replace(recipe.data.mixture, learned=None)
        self.recipe = replace(recipe, data=replace(recipe.data, mixture=mixture))
        self.seconds, self.cold = seconds, cold
        self.opened = feed.open_sources(self.recipe)
        self.total = feed.total_steps(self.recipe, self.opened)
        self.mixture = RunMixture(self.recipe, self.opened.training, self.total, None).mixture

    def measure(self, workers: int) -> Speed:
        """Make steps for the time, as one rank does.

        Raises:
            DataError: the data end before anything could be timed, or are bad.
        """
        if self.cold:
            self._forget_shards()
        data = replace(self.recipe.data, num_workers=workers)
        recipe = replace(self.recipe, data=data)
        found: defaultdict[str, float] = defaultdict(float)
        stop = self.total if self.mixture.end is None else min(self.total, self.mixture.end)
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            loader = feed.training_loader(recipe, self.opened, self.mixture, 0, stop, Path(folder))
            first_s = seconds = 0.0
            for step in loader:
                if step.failure is not None:
                    raise step.failure
                now = time.perf_counter()
                if not first_s:
                    first_s, began = now - began, now
                    continue
                found["samples"] += sum(step.drawn.values())
                for part in ("read_ms", "decode_ms", "collate_ms", "read_bytes"):
                    found[part] += getattr(step.cost, part)
                found["bad"] += step.cost.substituted
                seconds = now - began
                if seconds >= self.seconds:
                    break
            del loader, step  # ends the workers
        if not seconds:
            raise DataError(
                f"{self.recipe.name}: two steps at least must be there to be timed, but the run "
                f"has {stop}; set train.steps higher"
            )
        return Speed(
            workers,
            first_s,
            int(found["samples"]),
            seconds,
            found["read_ms"],
            found["decode_ms"],
            found["collate_ms"],
            int(found["read_bytes"]),
            int(found["bad"]),
        )

    def time_fields(self) -> dict[str, float]:
        """Microseconds that decoding takes: ``source.field`` -> mean over some samples."""
        return {
            f"{name}.{field}": microseconds
            for name, source in self.opened.training.items()
            for field, microseconds in _time_fields(source).items()
        }

    def _forget_shards(self) -> None:
        for source in self.opened.training.values():
            dataset = source.dataset
            if dataset.address is not None:
                continue
            for shard in islice(dataset.shards, _MOST_FORGOTTEN):
                descriptor = os.open(dataset.folder / shard.name, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(descriptor)


def _time_fields(source: Source) -> dict[str, float]:
    seconds: defaultdict[str, float] = defaultdict(float)
    refs = source.locate_all(np.arange(min(_TIMED_SAMPLES, len(source))))
    for ref in refs:
        for field, member in source.fetch(ref).items():
            if member is None:
                continue
            started = time.perf_counter()
            try:
                source.fields[field].decode(*member)
            except UndecodableError:
                continue  # counted as bad where steps are made
            seconds[field] += time.perf_counter() - started
    return {field: 1e6 * spent / len(refs) for field, spent in seconds.items()}
