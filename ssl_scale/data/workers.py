"""Steps made in worker processes, and their errors brought home unharmed.

torch wraps a worker's exception into the text of its traceback. What the user can mend must arrive
as it was said: so a worker sends such an error as an item, and the loader raises it in the main
process, once all steps before it were delivered.
"""

import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, cast

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ssl_scale.data.buffers import HEAP, Buffers
from ssl_scale.data.slots import Parcel, Slots
from ssl_scale.data.step_batches import StepBatches
from ssl_scale.errors import DataError, SslScaleError


@dataclass(frozen=True)
class WorkerFailure:
    """An error on its way out of a worker."""

    kind: type[SslScaleError]
    message: str


# Steps are made ahead: where there are too few processors, training comes first.
_NICENESS = 5


class StepStream:
    """Steps that can each be made alone; n workers make every n-th."""

    # Where a step's arrays are made; workers change it from step to step.
    buffers: Buffers = HEAP

    def steps(self) -> Iterator[int]:
        """The numbers of the steps, in their order."""
        raise NotImplementedError

    def make(self, step: int) -> StepBatches:
        """The batches of a step."""
        raise NotImplementedError

    def padding(self, step: int, failure: SslScaleError) -> StepBatches:
        """What stands in for a step that this rank could not make: as many rows, all empty."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[StepBatches]:
        return map(self.make, self.steps())


class _Turns(IterableDataset[Any]):
    """A stream as torch's loader takes it: a worker's turns of its steps.

    Args:
        stream: of all steps.
        slots: where workers put them, if there are any.
    """

    def __init__(self, stream: StepStream, slots: Slots | None) -> None:
        self.stream, self.slots = stream, slots

    def __iter__(self) -> Iterator[StepBatches | Parcel | WorkerFailure]:
        worker = get_worker_info()
        if worker is None:
            yield from self.stream
            return
        os.nice(_NICENESS)
        if self.slots is not None:
            self.slots.forget(worker.id)
        for step in islice(self.stream.steps(), worker.id, None, worker.num_workers):
            try:
                yield self._make(step, worker.id)
            except SslScaleError as error:
                yield WorkerFailure(type(error), str(error))
                return

    def _make(self, step: int, worker: int) -> StepBatches | Parcel:
        slot = self.slots.take(worker) if self.slots is not None else None
        self.stream.buffers = HEAP if slot is None else slot
        made = self.stream.make(step)
        return made if slot is None else slot.send(made)


class StepLoader(DataLoader[Any]):
    """torch's loader over a stream's turns, which opens what workers send, or raises it."""

    def __iter__(self) -> Any:
        """The stream's steps, in order."""
        if not self.num_workers and not self.pin_memory:
            # What torch would do, at less cost.
            yield from cast(Iterable[StepBatches], self.dataset)
            return
        try:
            for item in super().__iter__():
                if isinstance(item, WorkerFailure):
                    raise item.kind(item.message)
                yield item.open() if isinstance(item, Parcel) else item
        except RuntimeError as error:
            if not re.match(r"DataLoader worker \(pid", str(error)):
                raise
            raise DataError(
                f"the data loader's workers must live as long as the run, but one was killed "
                f"({str(error).splitlines()[0]}); if memory ran out, use fewer (data.num_workers)"
            ) from error


def steps_with_failure(
    stream: StepStream, num_workers: int = 0, pin: bool = False
) -> Generator[StepBatches, None, None]:
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
    slots = None
    if num_workers:
        # Those under way, the one that training holds, the one that comes, and one to write to.
        slots = _make_slots(num_workers, prefetch + 3)
        workers = {
            "prefetch_factor": prefetch,
            "persistent_workers": True,
            "multiprocessing_context": start_method,
            "worker_init_fn": leave_stopping_to_parent,
        }
    return StepLoader(
        _Turns(stream, slots),
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin,
        **workers,
    )


def leave_stopping_to_parent(worker: int) -> None:
    """End on a signal from the parent only: a run that is asked to stop needs its data until then.

    Slurm signals every process of a run, a terminal's Ctrl-C all that stand in its foreground.
    """
    asking = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}
    starter = multiprocessing.parent_process()
    assert starter is not None
    parent = starter.pid
    # Threads that start later inherit this; the one that waits learns who has sent a signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, asking)

    def wait() -> None:
        while (told := signal.sigwaitinfo(asking)).si_pid != parent:
            pass
        os._exit(128 + told.si_signo)

    threading.Thread(target=wait, daemon=True).start()


def _make_slots(workers: int, per_worker: int) -> Slots | None:
    try:
        return Slots(workers, per_worker)
    except OSError:
        return None  # torch's way serves as well, only slower
