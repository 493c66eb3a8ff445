"""What a run may rely on, whatever its shards, streams, ranks, workers and batches."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_scale.data import line
from ssl_scale.data.order import Order, StoredOrder

Where = tuple[int, int, int]


@dataclass(frozen=True)
class Run:
    """A run's shape: who makes what is the loader's rule, here in its plainest form."""

    order: Order
    world_size: int
    workers: int
    batch: int

    def make(self, step: int, rank: int) -> list[Where]:
        """A rank's samples of a step: every W-th of the global batch."""
        first = step * self.batch
        own = np.arange(first + rank, first + self.batch, self.world_size)
        place = self.order.locate(own)
        columns = (place.epoch, place.shard, place.row)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def batches(self, first_step: int, steps: int) -> list[list[Where]]:
        """Global batches, put together from what each worker of each rank makes."""
        made: dict[int, list[list[Where]]] = {}
        for rank in range(self.world_size):
            fresh = Run(copy(self.order), self.world_size, self.workers, self.batch)
            for worker in range(max(self.workers, 1)):
                for step in range(first_step + worker, first_step + steps, max(self.workers, 1)):
                    made.setdefault(step, []).append(fresh.make(step, rank))
        return [
            [parts[n % self.world_size][n // self.world_size] for n in range(self.batch)]
            for _, parts in sorted(made.items())
        ]


def copy(order: Order) -> Order:
    """The same order with nothing worked out, as another process has it."""
    return Order(order.sizes, order.seed, order.streams, order.window)


SIZES = st.one_of(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.builds(lambda size, count: [size] * count, st.integers(1, 30), st.integers(1, 12)),
    st.builds(lambda count, last: [7] * count + [last], st.integers(1, 200), st.integers(1, 7)),
)
ORDERS = st.builds(
    Order,
    sizes=SIZES,
    seed=st.integers(-(2**63), 2**63 - 1),
    streams=st.integers(1, 70),
    window=st.integers(1, 90),
)


@settings(deadline=None, max_examples=15)
@given(
    ORDERS,
    st.integers(1, 64),
    st.integers(0, 8),
    st.integers(1, 3),
    st.integers(0, 10**9),
)
def test_global_batches_are_the_same_on_any_ranks_and_workers_and_after_any_resume(
    order: Order, world_size: int, workers: int, per_rank: int, first_step: int
) -> None:
    batch, steps = world_size * per_rank, 3
    alone = Run(order, 1, 0, batch).batches(first_step, steps)
    assert Run(order, world_size, workers, batch).batches(first_step, steps) == alone
    resumed = Run(copy(order), world_size, workers, batch).batches(first_step + 2, 1)
    assert resumed == alone[2:]


@settings(deadline=None, max_examples=25)
@given(ORDERS, st.integers(0, 10**6), st.integers(1, 50))
def test_batches_that_straddle_epochs_still_give_every_sample_once_an_epoch(
    order: Order, epoch: int, batch: int
) -> None:
    total = len(order)
    first, last = epoch * total // batch, -(-(epoch + 2) * total // batch)
    run = Run(order, 1, 0, batch)
    seen = [where for step in range(first, last) for where in run.make(step, 0)]
    every = [(shard, row) for shard, size in enumerate(order.sizes) for row in range(size)]
    for each in (epoch, epoch + 1):
        assert sorted((shard, row) for at, shard, row in seen if at == each) == every


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.integers(20, 60), min_size=8, max_size=40),
    st.sampled_from([2, 4, 8]),
    st.integers(1, 4),
    st.integers(0, 5),
)
def test_a_rank_keeps_to_its_shards_where_ranks_divide_the_streams(
    sizes: list[int], world_size: int, per_world: int, epoch: int
) -> None:
    streams = world_size * per_world
    order = Order(sizes, seed=epoch, streams=streams, window=16)
    total = len(order) // streams * streams  # where streams are of two lengths, to the shorter
    own: list[set[tuple[int, int]]] = []
    for rank in range(world_size):
        place = order.locate(epoch * len(order) + np.arange(rank, total, world_size))
        own.append(set(zip(place.shard.tolist(), place.row.tolist(), strict=True)))
    # Streams are contiguous pieces of the line, so two of them share at most the shard in which
    # one ends: each of `streams` ends adds one shard to what the ranks touch together.
    touched = sum(len({shard for shard, _ in samples}) for samples in own)
    assert touched <= len(sizes) + streams
    assert sum(map(len, own)) == total


@settings(deadline=None, max_examples=25)
@given(SIZES, st.integers(0, 2**62), st.lists(st.integers(0, 10**12), min_size=1, max_size=30))
def test_what_a_line_forgets_it_works_out_again(
    sizes: list[int], seed: int, positions: list[int]
) -> None:
    wanted = Order(sizes, seed, streams=3, window=8).locate(np.array(positions))
    forgetful = Order(sizes, seed, streams=3, window=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line, "_MOST_GROUPS", 1)
        patch.setattr(line, "GROUP", 2)
        patch.setattr(line, "_CHUNK", 4)
        for at, position in enumerate(positions):
            place = forgetful.locate(np.array([position]))
            assert (place.shard[0], place.row[0]) == (wanted.shard[at], wanted.row[at])


@settings(deadline=None, max_examples=25)
@given(SIZES, st.integers(0, 3))
def test_the_stored_order_is_the_shards_as_they_lie(sizes: list[int], epoch: int) -> None:
    order = StoredOrder(sizes)
    place = order.locate(np.arange(len(order)) + epoch * len(order))
    every = [(shard, row) for shard, size in enumerate(sizes) for row in range(size)]
    assert list(zip(place.shard.tolist(), place.row.tolist(), strict=True)) == every


def test_a_million_shards_take_little_memory() -> None:
    rng = np.random.default_rng(0)
    order = Order(rng.integers(900, 1100, 1_000_000).astype(np.uint32), seed=1)
    place = order.locate(np.arange(900_000_000, 900_000_256))
    assert len(set(place.shard.tolist())) > 60
    (held,) = order._lines.values()
    arrays = (held._group_starts, held._groups, held._starts, held._shards)
    assert held._group_starts.nbytes <= 8 * (1_000_000 / 64 + 1)
    assert sum(array.nbytes for array in arrays) < 1e6
    assert np.shares_memory(held._sizes, order.sizes)
