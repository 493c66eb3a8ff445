"""Collectives, with gradients where a loss needs them: the only file that names torch.distributed.

The engine averages gradients over ranks. `gather` sums, in its backward pass, what every rank
sends to a slice; so a loss summed over local rows against gathered columns, and a loss computed
alike on every rank from gathered tensors, both train exactly like one process with the whole batch.
Without a process group every function is the identity for one rank.
"""

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as torch_dist
from torch import Tensor
from torch.autograd import Function
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from ssl_scale.errors import SslScaleError

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether a process group exists."""
    return torch_dist.is_available() and torch_dist.is_initialized()


def start(backend: str, rank: int, world_size: int, timeout_s: float = 1800.0) -> None:
    """Join the process group.

    The launcher names the meeting point: ``SSL_SCALE_RENDEZVOUS`` is a file's URL on one host (so
    nothing listens beyond loopback); otherwise ``MASTER_ADDR`` and ``MASTER_PORT`` are used.

    Args:
        backend: ``nccl`` or ``gloo``.
        rank: this process.
        world_size: all processes.
        timeout_s: how long a collective may wait.
    """
    if is_distributed():
        return
    timeout = timedelta(seconds=timeout_s)
    meeting = os.environ.get("SSL_SCALE_RENDEZVOUS", "env://")
    store = _store_of_attempt(rank, world_size, timeout) if meeting == "env://" else None
    torch_dist.init_process_group(
        backend,
        init_method=meeting if store is None else None,
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=timeout,
    )


def _store_of_attempt(rank: int, world_size: int, timeout: timedelta) -> torch_dist.Store | None:
    """Where ranks meet that torchrun has started, apart from those that it started before them.

    It keeps its store when it starts ranks again: they would find the addresses of the dead there,
    and wait for ever (pytorch issue 135712). None where torchrun has not started all ranks: those
    of several hosts need not agree on the number of the attempt.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT")
    if attempt is None or os.environ.get("LOCAL_WORLD_SIZE") != str(world_size):
        return None
    store, _, _ = next(rendezvous("env://", rank, world_size, timeout=timeout))
    return PrefixStore(f"attempt {attempt}", store)


def stop() -> None:
    """Leave the process group, if there is one."""
    if is_distributed():
        torch_dist.destroy_process_group()


def rank() -> int:
    """This process's place among the data ranks."""
    return torch_dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many data ranks share the global batch."""
    return torch_dist.get_world_size() if is_distributed() else 1


def device() -> torch.device:
    """Where the backend wants tensors."""
    if not is_distributed():
        return torch.device("cpu")
    return torch.device("cuda" if torch_dist.get_backend() == "nccl" else "cpu")


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        widest = max(sizes)
        padded = local.new_zeros(widest, *local.shape[1:])
        padded[: local.shape[0]] = local
        parts = [torch.empty_like(padded) for _ in sizes]
        torch_dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous()
        torch_dist.all_reduce(total)
        start = sum(ctx.sizes[: rank()])
        return total[start : start + ctx.sizes[rank()]], None


def gather(local: Tensor) -> Tensor:
    """Concatenate the ranks' tensors along the first dimension, in rank order, with gradient.

    Ranks may bring different numbers of rows, also none.
    """
    if world_size() == 1:
        return local
    sizes = _rows_of_all(local.shape[0], local.device)
    if max(sizes) == 0:
        return local
    if local.is_floating_point():
        return _Gather.apply(local.contiguous(), sizes)  # type: ignore[no-any-return,no-untyped-call]
    is_bool = local.dtype == torch.bool
    whole = local.to(torch.uint8) if is_bool else local
    gathered: Tensor = _Gather.apply(whole.contiguous(), sizes)  # type: ignore[no-untyped-call]
    return gathered.bool() if is_bool else gathered


def offset(rows: int, device: torch.device) -> int:
    """How many rows lower ranks bring, where this rank brings `rows`."""
    return 0 if world_size() == 1 else sum(_rows_of_all(rows, device)[: rank()])


def _rows_of_all(rows: int, device: torch.device) -> list[int]:
    """How many rows each rank brings, where this rank brings `rows`."""
    mine = torch.tensor([rows], device=device)
    counts = [torch.zeros_like(mine) for _ in range(world_size())]
    torch_dist.all_gather(counts, mine)
    return torch.cat(counts).tolist()


class _PassOn(Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, arriving: int) -> Tensor:
        ctx.left = local.shape[0]
        return _exchange(local, arriving, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _exchange(gradients[0], ctx.left, -1), None


def _exchange(leaving: Tensor, arriving: int, distance: int) -> Tensor:
    """Send rows to the rank at a distance on the ring; take those of the rank as far before."""
    received = leaving.new_empty(arriving, *leaving.shape[1:])
    there, back = (rank() + distance) % world_size(), (rank() - distance) % world_size()
    transfers = []
    if leaving.shape[0]:
        transfers.append(torch_dist.P2POp(torch_dist.isend, leaving.contiguous(), there))
    if arriving:
        transfers.append(torch_dist.P2POp(torch_dist.irecv, received, back))
    for transfer in torch_dist.batch_isend_irecv(transfers) if transfers else ():
        transfer.wait()
    return received


def ring(local: Tensor) -> Iterator[Tensor]:
    """Every rank's rows in turn, with gradient, beginning with this rank's own.

    Rows go from each rank to the next, so that no rank has to compare its own with more than one
    other rank's at once. Ranks may bring different numbers of rows, also none; all must go around.
    """
    yield local
    if world_size() > 1:
        sizes = _rows_of_all(local.shape[0], local.device)
        for distance in range(1, world_size()):
            local = _PassOn.apply(local, sizes[rank() - distance])  # type: ignore[no-untyped-call]
            yield local


class _Reduce(Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.clone()
        torch_dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        torch_dist.all_reduce(total)
        return total


def reduce(local: Tensor) -> Tensor:
    """Sum over ranks, with gradient."""
    if world_size() == 1:
        return local
    return _Reduce.apply(local.contiguous())  # type: ignore[no-any-return,no-untyped-call]


def reduce_max(local: Tensor) -> Tensor:
    """Maximum over ranks, without gradient."""
    if world_size() == 1:
        return local
    largest = local.detach().clone()
    torch_dist.all_reduce(largest, op=torch_dist.ReduceOp.MAX)
    return largest


def gather_objects(value: T) -> list[T]:
    """Every rank's value, in rank order. Only values of our own making: they travel pickled."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    torch_dist.all_gather_object(values, value)
    return values


def broadcast_object(value: Any) -> Any:
    """Rank 0's value, on every rank. Only values of our own making: they travel pickled."""
    if world_size() == 1:
        return value
    box = [value]
    torch_dist.broadcast_object_list(box, src=0)
    return box[0]


def fail_together(failure: SslScaleError | None) -> None:
    """Raise on every rank what the lowest failing rank met, if one did.

    A rank that failed alone would leave the others waiting for it in their next collective.
    """
    mine = None if failure is None else (type(failure), str(failure))
    first = next(filter(None, gather_objects(mine)), None)
    if failure is not None and first == mine:
        raise failure  # with its own traceback
    if first is not None:
        kind, message = first
        raise kind(message)


def from_rank_0(make: Callable[[], T]) -> T:
    """What rank 0 makes, on every rank; what the user can mend there stops all."""
    value, failure = None, None
    if rank() == 0:
        try:
            value = make()
        except SslScaleError as error:
            failure = error
    fail_together(failure)
    made: T = broadcast_object(value)
    return made


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank."""
    if world_size() == 1:
        return flag
    return bool(reduce_max(torch.tensor([int(flag)], device=device())).item())


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        torch_dist.barrier()
