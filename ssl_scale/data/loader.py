"""The stream of training steps, and finite passes for validation.

Step k is a pure function of the mixture and k: a worker makes every n-th step, rank r of W takes
samples r, r + W, ... of each micro-batch (`split`), and resuming is starting at k. The global
batches are the same for any number of ranks and workers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np

from ssl_scale.data.assembly import Assembly
from ssl_scale.data.decoding import UndecodableError
from ssl_scale.data.mixture import Mixture
from ssl_scale.data.quarantine import Quarantine
from ssl_scale.data.source import SampleRef, Source
from ssl_scale.data.split import Budget, Part, Splitter
from ssl_scale.data.step_batches import Cost, StepBatches
from ssl_scale.data.workers import StepStream
from ssl_scale.data.workers import dataloader as dataloader
from ssl_scale.errors import DataError, RecipeError, SslScaleError
from ssl_scale.types import Batch, Packed, Ragged


class TrainingStream(StepStream):
    """This rank's part of each training step, without end unless told.

    Args:
        sources: name -> source; those that the mixture names.
        mixture: what each step takes from them.
        accumulate: micro-batches a step.
        rank: this process's place among the data ranks.
        world_size: how many there are.
        start_step: the first step to make: 0, or where a run goes on.
        end_step: the step before which the stream ends.
        bad_samples: tolerated share of samples that do not decode; 0 stops at the first.
        quarantine: folder for the log of bad samples and their substitutes.
        budget: for sources whose micro-batches are made by tokens.

    Raises:
        RecipeError: ranks and micro-batches cannot share what a step takes.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        mixture: Mixture,
        *,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
        end_step: int | None = None,
        bad_samples: float = 0.0,
        quarantine: Path | None = None,
        budget: Budget | None = None,
    ) -> None:
        _check_rank(rank, world_size)
        self.sources, self.mixture = dict(sources), mixture
        budget = budget or Budget(1, {})
        for name in mixture.names:
            if name not in self.sources:
                raise RecipeError(
                    f"the mixture must name given sources, but {name!r} is none of "
                    f"{sorted(self.sources)}"
                )
        for share in mixture.draw(start_step) if mixture.is_even else ():
            if share.source not in budget.lengths and share.count % (world_size * accumulate):
                raise RecipeError(
                    f"what a step takes from source {share.source!r} must be divisible by the "
                    f"number of ranks x accumulate = {world_size} x {accumulate}, but is "
                    f"{share.count}; change data.global_batch, the weights or the ranks"
                )
        self.splitter = Splitter(accumulate, rank, world_size, budget)
        self.start_step, self.end_step = start_step, end_step
        self.quarantine = Quarantine(bad_samples, quarantine, rank)

    def steps(self) -> Iterator[int]:
        """From the start to the end."""
        if self.end_step is None:
            return count(self.start_step)
        return iter(range(self.start_step, self.end_step))

    def positions(self, step: int) -> dict[str, int]:
        """Each source's position before a step: the data's whole state, derived from the step."""
        return self.mixture.positions(step)

    def make(self, step: int) -> StepBatches:
        """The batches of any step."""
        cost = Cost()
        shares = self.mixture.draw(step)
        plan = self.splitter.split(shares)
        micros = tuple(tuple(self._batch(part, cost) for part in parts) for parts in plan.micros)
        drawn = {share.source: share.count for share in shares}
        return StepBatches(step, micros, cost, drawn=drawn, tokens=plan.tokens, places=plan.places)

    def padding(self, step: int, failure: SslScaleError) -> StepBatches:
        """The step's shape without its samples."""
        micros = tuple(
            tuple(
                _pack(Assembly(self.sources[part.source], part.rows).finish(), part)
                for part in parts
            )
            for parts in self.splitter.split(self.mixture.draw(step)).micros
        )
        return StepBatches(step, micros, failure=failure)

    def _batch(self, part: Part, cost: Cost) -> Batch:
        source = self.sources[part.source]
        batch = Assembly(source, part.rows, self.buffers, cost)
        self.quarantine.count(source.name, len(part.positions))
        known = self.quarantine.substitutes(
            source.name, source.fingerprint, part.positions.tolist()
        )
        cost.substituted += len(known)
        refs = source.locate_all(part.positions)
        if known:
            refs = [source.locate(known.get(ref.position, ref.position)) for ref in refs]
        for row, error in batch.fill(refs).items():
            self._substitute(batch, row, refs[row], error)
        return _pack(batch.finish(), part)

    def _substitute(
        self, batch: Assembly, row: int, ref: SampleRef, error: UndecodableError
    ) -> None:
        """Put another sample into the row of a bad one, if that is tolerated."""
        source = batch.source
        self.quarantine.refuse(error, source.name)
        substitute = self._next_good(batch, row, ref, error)
        batch.cost.substituted += 1
        record = {
            "substitute": substitute.position,
            "epoch": ref.epoch,
            "shard": source.dataset.shards[ref.shard].name,
            "key": source.key(ref),
            "substitute_key": source.key(substitute),
            "reason": str(error),
        }
        self.quarantine.log(source.name, source.fingerprint, ref.position, record)

    def _next_good(
        self, batch: Assembly, row: int, ref: SampleRef, error: UndecodableError
    ) -> SampleRef:
        source = batch.source
        rest = source.order.rest_of_block(ref.position)
        for candidate in source.locate_all(rest):
            try:
                batch.read(row, candidate)
            except UndecodableError:
                continue  # it is counted when its own turn comes
            return candidate
        raise DataError(
            f"source {source.name!r}: some sample among {len(rest) + 1} neighbours must decode, "
            f"but none does; the first: {error}; mend the data, or make data.window larger"
        ) from error


class ValidationStream(StepStream):
    """One pass over each source in turn: every sample exactly once over all ranks.

    The last batch of a source is filled up with rows that have an empty key and lack every field,
    so all ranks make equally many steps of equal size and none waits for another.

    Args:
        sources: name -> source.
        global_batch: samples a step, over all ranks.
        rank: this process's place among the data ranks.
        world_size: how many there are.
        bad_samples: tolerated share of samples that do not decode; their rows are empty.
        quarantine: folder for the log of bad samples.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        global_batch: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        bad_samples: float = 0.0,
        quarantine: Path | None = None,
    ) -> None:
        _check_rank(rank, world_size)
        if global_batch < 1 or global_batch % world_size:
            raise RecipeError(
                f"global_batch must be divisible by the number of ranks, {world_size}, but is "
                f"{global_batch}"
            )
        self.sources, self.global_batch = dict(sources), global_batch
        self.rank, self.world_size = rank, world_size
        self.quarantine = Quarantine(bad_samples, quarantine, rank)
        self._turns = [
            (name, start)
            for name, source in self.sources.items()
            for start in range(0, len(source), global_batch)
        ]

    def __len__(self) -> int:
        """Steps, the same on each rank."""
        return len(self._turns)

    def steps(self) -> Iterator[int]:
        """All of them."""
        return iter(range(len(self)))

    def make(self, step: int) -> StepBatches:
        """A step of one batch of one source."""
        cost = Cost()
        name, start = self._turns[step]
        source = self.sources[name]
        own = np.arange(start + self.rank, start + self.global_batch, self.world_size)
        batch = Assembly(source, len(own), self.buffers, cost)
        refs = source.locate_all(own[own < len(source)])
        self.quarantine.count(name, len(refs))
        for row, error in batch.fill(refs).items():
            self.quarantine.refuse(error, name)
            record = {"substitute": None, "key": source.key(refs[row]), "reason": str(error)}
            position = refs[row].position
            self.quarantine.log(name, source.fingerprint, position, record)
        return StepBatches(step, ((batch.finish(),),), cost)

    def padding(self, step: int, failure: SslScaleError) -> StepBatches:
        """The step's shape without its samples."""
        source = self.sources[self._turns[step][0]]
        batch = Assembly(source, self.global_batch // self.world_size).finish()
        return StepBatches(step, ((batch,),), failure=failure)


def _pack(batch: Batch, part: Part) -> Batch:
    """The batch, with one field's values laid end to end if the part says so."""
    if part.packed is None:
        return batch
    padded = batch.fields[part.packed]
    if not isinstance(padded, Ragged):
        raise DataError(
            f"source {part.source!r}: a packed field must have lengths that differ, but "
            f"{part.packed!r} has one shape; take `pack` off the source"
        )
    return replace(batch, fields={**batch.fields, part.packed: Packed.of(padded)})


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in [0, {world_size}), but is {rank}")
