"""Drawing: even over groups, the same wherever samples lie, and growing with its size."""

import hashlib

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from ssl_scale_data_tools.selecting.draw import draw, quotas, ticket

HASHES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(3000)]


def test_a_ticket_is_of_the_content_alone() -> None:
    tickets = ticket(pa.array(HASHES), 5)
    assert (ticket(pa.array(HASHES).slice(7, 20), 5) == tickets[7:27]).all()
    assert (ticket(pa.array(HASHES[::-1]), 5) == tickets[::-1]).all()
    assert (ticket(pa.array(HASHES), 6) != tickets).all()
    assert ticket(pa.array([], pa.string()), 5).shape == (0,)


def test_tickets_are_even() -> None:
    for seed in (0, 1, 2**63 - 1):
        counts = np.bincount((ticket(pa.array(HASHES), seed) >> np.uint64(60)).astype(int))
        # Pearson's statistic of 16 classes: above 37.7 in one of 1,000 seeds.
        expected = len(HASHES) / 16
        assert ((counts - expected) ** 2 / expected).sum() < 37.7


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 400))
def test_quotas_fill_groups_alike(sizes: list[int], total: int) -> None:
    given_out = quotas(np.array(sizes), total)
    assert given_out.sum() == min(total, sum(sizes))
    assert (given_out <= sizes).all() and (given_out >= 0).all()
    cut = given_out[given_out < sizes]
    if len(cut):
        assert cut.max() - cut.min() <= 1
        assert (given_out <= cut.max() + 1).all() and given_out.max() <= cut.min() + 1


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 3000), st.integers(0, 200), st.booleans())
def test_a_larger_draw_holds_the_smaller(total: int, more: int, in_groups: bool) -> None:
    tickets = ticket(pa.array(HASHES), 1)
    groups = np.arange(len(HASHES)) ** 2 % 7 if in_groups else None
    small, large = draw(tickets, total, groups), draw(tickets, total + more, groups)
    assert small.sum() == min(total, len(HASHES))
    assert (large | ~small).all()
