"""Steps made in worker processes, and their errors brought home unharmed.

torch wraps a worker's exception into the text of its traceback. What the user can mend must arrive
as it was said: so a worker sends such an error as an item, and the loader raises it in the main
process, once all steps before it were delivered.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ssl_scale.data.step_batches import StepBatches
from ssl_scale.errors import DataError, SslScaleError


@dataclass(frozen=True)
class WorkerFailure:
    """An error on its way out of a worker."""

    kind: type[SslScaleError]
    message: str


class StepStream(IterableDataset[StepBatches | WorkerFailure]):
    """Steps that can each be made alone; n workers make every n-th."""

    def steps(self) -> Iterator[int]:
        """The numbers of the steps, in their order."""
        raise NotImplementedError

    def make(self, step: int) -> StepBatches:
        """The batches of a step."""
        raise NotImplementedError

    def padding(self, step: int, failure: SslScaleError) -> StepBatches:
        """What stands in for a step that this rank could not make: as many rows, all empty."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[StepBatches | WorkerFailure]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for turn, step in enumerate(self.steps()):
            if turn % workers != number:
                continue
            try:
                made = self.make(step)
            except SslScaleError as error:
                if worker is None:
                    raise
                yield WorkerFailure(type(error), str(error))
                return
            yield made


class StepLoader(DataLoader[Any]):
    """torch's loader over a `StepStream`, which raises what its workers met."""

    def __iter__(self) -> Any:
        """The stream's steps, in order."""
        try:
            for item in super().__iter__():
                if isinstance(item, WorkerFailure):
                    raise item.kind(item.message)
                yield item
        except RuntimeError as error:
            if not re.match(r"DataLoader worker \(pid", str(error)):
                raise
            raise DataError(
                f"the data loader's workers must live as long as the run, but one was killed "
                f"({str(error).splitlines()[0]}); if memory ran out, use fewer (data.num_workers)"
            ) from error


def steps_with_failure(
    stream: StepStream, num_workers: int = 0, pin: bool = False
) -> Iterator[StepBatches]:
    """This rank's steps; one that it cannot make comes last, as padding that says why.

    The other ranks are about to meet this one in a collective: so it comes there, and tells them.
    """
    to_make = stream.steps()
    try:
        for made in dataloader(stream, num_workers, pin):
            next(to_make)
            yield made
    except SslScaleError as failure:
        yield stream.padding(next(to_make), failure)


def dataloader(
    stream: StepStream,
    num_workers: int = 0,
    pin: bool = False,
    prefetch: int = 2,
    start_method: Literal["fork", "spawn", "forkserver"] | None = None,
) -> StepLoader:
    """A loader of whole steps.

    Args:
        stream: what to load.
        num_workers: worker processes; with none, steps are made when they are asked for.
        pin: whether to put batches into page-locked memory, for copies to a GPU that overlap.
        prefetch: steps that each worker makes ahead.
        start_method: how workers start; None is the platform's way.
    """
    workers: dict[str, Any] = {}
    if num_workers:
        workers = {
            "prefetch_factor": prefetch,
            "persistent_workers": True,
            "multiprocessing_context": start_method,
        }
    return StepLoader(stream, batch_size=None, num_workers=num_workers, pin_memory=pin, **workers)
