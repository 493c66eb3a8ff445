"""Micro-batches by tokens: what goes together, from lengths alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_scale.data.budget import TokenPlan, bucket, pack

LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=60).map(np.array)


def members(plan: TokenPlan) -> list[int]:
    return sorted(i for micro in plan.groups for own in micro for i in own.tolist())


@settings(deadline=None, max_examples=100)
@given(LENGTHS, st.integers(20, 200), st.sampled_from([1, 2, 4]))
def test_packs_hold_every_sample_once_and_no_more_than_the_limit(
    lengths: np.ndarray, max_tokens: int, world_size: int
) -> None:
    plan = pack(lengths, max_tokens, world_size)
    assert members(plan) == list(range(len(lengths)))
    assert all(len(micro) == world_size for micro in plan.groups)
    for micro in plan.groups:
        for own in micro:
            assert lengths[own].sum() <= max_tokens or len(own) == 1
    loads = [[int(lengths[own].sum()) for own in micro] for micro in plan.groups]
    assert plan.tokens == lengths.sum()
    assert plan.places == sum(max(micro) for micro in loads) * world_size
    # The fullest rank has at most one sample more than the emptiest.
    everyone = [load for micro in loads for load in micro]
    assert max(everyone) - min(everyone) <= max(lengths.max(), 0)


@settings(deadline=None, max_examples=100)
@given(LENGTHS, st.integers(20, 200), st.sampled_from([1, 2, 4]))
def test_buckets_hold_samples_of_similar_length_within_the_limit(
    lengths: np.ndarray, max_tokens: int, world_size: int
) -> None:
    plan = bucket(lengths, max_tokens, world_size)
    assert members(plan) == list(range(len(lengths)))
    tops = []
    for micro in plan.groups:
        assert len(micro) == world_size
        sizes = [len(own) for own in micro]
        assert max(sizes) - min(sizes) <= 1
        longest = max(int(lengths[own].max(initial=1)) for own in micro)
        assert max(sizes) * longest <= max_tokens or max(sizes) == 1
        together = lengths[np.concatenate(micro)]
        tops.append((int(together.max()), int(together.min())))
    assert all(low >= high for (_, low), (high, _) in zip(tops, tops[1:], strict=False))
    assert plan.places >= plan.tokens


def test_packing_wastes_little_where_padding_would_waste_most() -> None:
    lengths = np.random.default_rng(0).geometric(0.02, 512).clip(max=512)
    packed = pack(lengths, 4096, 4)
    assert 1 - packed.tokens / packed.places < 0.01
    assert len(packed.groups) == -(-packed.tokens // (4096 * 4))
    padded = 1 - lengths.sum() / (len(lengths) * lengths.max())
    bucketed = bucket(lengths, 4096, 4)
    assert padded > 0.8 and 1 - bucketed.tokens / bucketed.places < 0.5


def test_plans_are_equal_for_equal_lengths() -> None:
    lengths = np.array([5, 9, 9, 1, 0, 5])
    one, two = pack(lengths, 12, 2), pack(lengths, 12, 2)
    assert [[own.tolist() for own in micro] for micro in one.groups] == [
        [own.tolist() for own in micro] for micro in two.groups
    ]


def test_a_sample_longer_than_the_limit_is_alone() -> None:
    plan = pack(np.array([50, 3, 3]), 10, 1)
    assert [[own.tolist() for own in micro] for micro in plan.groups] == [[[0]], [[1, 2]]]
    assert plan.places == pytest.approx(56)
