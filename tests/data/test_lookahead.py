import numpy as np
import pytest

from ssl_scale.data.lookahead import Lookahead
from ssl_scale.data.order import Order, StoredOrder


class Counting(Order):
    calls = 0

    def locate(self, positions):
        self.calls += 1
        return super().locate(positions)


@pytest.mark.parametrize("sizes", [[5], [40, 3, 17], [3000, 2000]])
@pytest.mark.parametrize("stride", [1, 3])
def test_places_are_those_of_the_order(sizes: list[int], stride: int) -> None:
    order = Order(sizes, seed=3, streams=4, window=16)
    ahead = Lookahead(order)
    starts = [0, 48, 96, 7, 10**12, 10**12 + 48, 96, 97, 100_000]
    for start in starts:
        positions = start + stride * np.arange(16)
        expected, found = order.locate(positions), ahead.locate(positions)
        for name in ("epoch", "shard", "row"):
            assert np.array_equal(getattr(expected, name), getattr(found, name))


@pytest.mark.parametrize("positions", [[], [4], [3, 3], [9, 5, 1], [1, 2, 4], [0, 1]])
def test_any_positions_may_be_asked_for(positions: list[int]) -> None:
    order = StoredOrder([6, 7])
    ahead = Lookahead(order)
    ahead.locate(np.arange(8))
    asked = np.array(positions, dtype=np.int64)
    assert np.array_equal(ahead.locate(asked).row, order.locate(asked).row)


def test_a_run_asks_the_order_seldom() -> None:
    order = Counting([100_000], seed=0)
    ahead = Lookahead(order)
    for step in range(65):
        ahead.locate(step * 64 + 1 + 2 * np.arange(32))
    assert order.calls == 2
