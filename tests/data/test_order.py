import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_scale.data.order import Order
from ssl_scale.data.permutation import permute
from ssl_scale.data.seeds import combine

ORDERS = st.builds(
    Order,
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=9),
    seed=st.integers(-(2**63), 2**63 - 1),
    streams=st.integers(1, 12),
    window=st.integers(1, 70),
)


def samples(order: Order, positions: np.ndarray) -> list[tuple[int, int]]:
    place = order.locate(positions)
    return list(zip(place.shard.tolist(), place.row.tolist(), strict=True))


@settings(deadline=None, max_examples=150)
@given(ORDERS, st.integers(0, 10**9))
def test_every_epoch_holds_every_sample_exactly_once(order: Order, epoch: int) -> None:
    seen = samples(order, np.arange(len(order)) + epoch * len(order))
    assert sorted(seen) == [(s, r) for s, size in enumerate(order.sizes) for r in range(size)]


@settings(deadline=None, max_examples=60)
@given(ORDERS, st.lists(st.integers(0, 10**12), min_size=1, max_size=20))
def test_a_position_means_the_same_alone_and_among_others(
    order: Order, positions: list[int]
) -> None:
    fresh = Order(order.sizes.tolist(), order.seed, order.streams, order.window)
    alone = [samples(fresh, np.array([position]))[0] for position in positions]
    assert samples(order, np.array(positions)) == alone


@settings(deadline=None, max_examples=100)
@given(ORDERS, st.integers(0, 5000))
def test_the_rest_of_a_block_is_its_other_positions_in_turn(order: Order, position: int) -> None:
    rest = order.rest_of_block(position)
    assert position not in rest
    epoch = position // len(order)
    assert set(rest // len(order)) <= {epoch}
    inside = np.append(rest, position) - epoch * len(order)
    assert len(set(inside % order.streams)) == 1
    elements = np.sort(inside // order.streams)
    assert elements.tolist() == list(range(elements[0], elements[0] + len(elements)))
    assert len(elements) <= order.window
    if len(rest):
        following = position + order.streams
        assert rest[0] in (following, inside.min() + epoch * len(order))
        assert sorted([*order.rest_of_block(int(rest[0])), rest[0]]) == sorted([*rest, position])


@settings(deadline=None, max_examples=100)
@given(ORDERS, st.integers(0, 3))
def test_streams_are_contiguous_and_their_lengths_differ_by_at_most_one(
    order: Order, epoch: int
) -> None:
    total = len(order)
    place = order.locate(np.arange(total) + epoch * total)
    shards, rows = order._line(epoch).locate(np.arange(total))
    first_of_shard = np.zeros(len(order.sizes), dtype=int)
    first_of_shard[shards[rows == 0]] = np.flatnonzero(rows == 0)
    line = first_of_shard[place.shard] + place.row
    lengths, end = [], 0
    for stream in range(min(order.streams, total)):
        own = np.sort(line[stream :: order.streams])
        assert own.tolist() == list(range(end, end + len(own)))
        lengths.append(len(own))
        end += len(own)
    assert max(lengths) - min(lengths) <= 1
    assert lengths == sorted(lengths, reverse=True)


def test_epochs_and_seeds_give_different_orders_and_shifted_boundaries() -> None:
    order = Order([500] * 4, seed=1, streams=4, window=64)
    first = samples(order, np.arange(2000))
    assert first != samples(order, np.arange(2000, 4000))
    assert first != samples(Order([500] * 4, seed=2, streams=4, window=64), np.arange(2000))
    ends = [
        len(order.rest_of_block(epoch * 2000)) + 1 for epoch in range(8)
    ]  # the first block of an epoch ends where that epoch's boundaries say
    assert len(set(ends)) > 4


def test_a_sample_comes_as_often_to_each_place_of_a_block() -> None:
    size, trials = 11, 4000
    keys = combine(7, np.arange(trials))
    counts = np.zeros((size, size))
    for index in range(size):
        places = permute(np.full(trials, index), np.full(trials, size), keys)
        counts[index] = np.bincount(places, minlength=size)
    expected = trials / size
    # Chi-square with 100 degrees of freedom: 160 is beyond the 99.99th percentile.
    assert ((counts - expected) ** 2 / expected).sum() < 160


def test_neighbours_do_not_stay_neighbours() -> None:
    size = 4096
    shuffled = permute(np.arange(size), np.full(size, size), np.repeat(combine(3), size))
    assert (np.abs(np.diff(shuffled)) == 1).sum() < 12
    assert abs(np.corrcoef(np.arange(size), shuffled)[0, 1]) < 0.06


def test_a_rank_touches_only_its_own_streams_where_the_sizes_share_factors() -> None:
    streams, ranks, batch = 8, 4, 16
    positions = np.arange(3 * batch, 4 * batch)
    touched = [set(positions[rank::ranks] % streams) for rank in range(ranks)]
    assert all(not touched[a] & touched[b] for a in range(ranks) for b in range(a))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": [3, 0]}, "sizes must all be at least 1"),
        ({"sizes": []}, "sizes must all be at least 1"),
        ({"sizes": [3], "streams": 0}, "streams must be at least 1, but is 0"),
        ({"sizes": [3], "window": 0}, "window must be at least 1, but is 0"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Order(seed=0, **arguments)
