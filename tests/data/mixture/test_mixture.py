from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_scale.data.mixture import (
    AllSources,
    Begin,
    EachSample,
    Ending,
    Mixture,
    OneSource,
    make_mixture,
    temperature_weights,
    whole_shares,
)
from ssl_scale.data.mixture.stretches import ScheduledWeights
from ssl_scale.errors import RecipeError
from ssl_scale.optim.schedule import Linear

WEIGHTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 30), min_size=1, max_size=8)


@settings(deadline=None, max_examples=25)
@given(WEIGHTS, st.integers(0, 2**40))
def test_counts_are_within_one_of_their_due_after_every_draw(
    weights: dict[str, int], seed: int
) -> None:
    mixture = OneSource(weights, global_batch=1, seed=seed)
    total, drawn = sum(weights.values()), Counter()
    for step in range(min(2 * total + 3, 100)):
        assert mixture.positions(step) == {name: drawn[name] for name in weights}
        for name, weight in weights.items():
            assert abs(drawn[name] - Fraction(step * weight, total)) < 1
        (share,) = mixture.draw(step)
        assert share.start == drawn[share.source]
        drawn[share.source] += 1


@settings(deadline=None, max_examples=25)
@given(WEIGHTS, st.integers(0, 10**15))
def test_a_draw_far_away_is_known_without_the_draws_before_it(
    weights: dict[str, int], step: int
) -> None:
    mixture = OneSource(weights, global_batch=128)
    here, there = mixture.positions(step), mixture.positions(step + 1)
    (share,) = mixture.draw(step)
    assert share.start == here[share.source]
    assert there == {**here, share.source: share.start + 128}


def test_the_seed_decides_only_who_goes_first() -> None:
    weights = {"a": 1, "b": 1, "c": 1, "d": 1}
    firsts = {OneSource(weights, 1, seed).draw(0)[0].source for seed in range(40)}
    assert firsts == set(weights)
    one, same = (
        [OneSource(weights, 1, seed=3).draw(step)[0].source for step in range(9)] for _ in "ab"
    )
    assert one == same


def test_weights_become_the_smallest_whole_shares() -> None:
    assert whole_shares({"a": 0.5, "b": 1, "c": 0.25}) == {"a": 2, "b": 4, "c": 1}
    assert whole_shares({"a": 3e9, "b": 1e9}) == {"a": 3, "b": 1}
    rounded = whole_shares({"a": 2**0.5, "b": 3**0.5, "tiny": 1e-9})
    assert sum(rounded.values()) == 10_000
    assert rounded["tiny"] == 1
    assert rounded["a"] / rounded["b"] == pytest.approx((2 / 3) ** 0.5, abs=1e-3)


def test_temperature_flattens_sizes() -> None:
    sizes = {"large": 1_000_000, "small": 100}
    assert temperature_weights(sizes, 1) == pytest.approx(sizes)
    assert temperature_weights(sizes, 2) == pytest.approx({"large": 1000, "small": 10})
    with pytest.raises(ValueError, match="temperature must be above 0, but is 0"):
        temperature_weights(sizes, 0)


@settings(deadline=None, max_examples=25)
@given(WEIGHTS, st.integers(10, 4000), st.integers(0, 10**9))
def test_all_sources_split_the_batch_by_weight(
    weights: dict[str, int], batch: int, step: int
) -> None:
    mixture = AllSources(weights, batch)
    shares = mixture.draw(step)
    assert [share.source for share in shares] == list(weights)
    assert sum(share.count for share in shares) == batch
    for share in shares:
        due = batch * weights[share.source] / sum(weights.values())
        # Off by rounding, and by what the heaviest gives to those who would get nothing.
        assert share.count >= 1
        assert due - len(weights) < share.count < due + 1 + 1e-9
        assert share.start == mixture.positions(step)[share.source]
        assert share.start + share.count == mixture.positions(step + 1)[share.source]


@pytest.mark.parametrize("kind", [OneSource, AllSources])
@pytest.mark.parametrize(
    ("weights", "batch", "message"),
    [
        ({}, 4, "a mixture must have at least one source, but has none"),
        ({"a": 1, "b": 0}, 4, "source 'b': weight must be above 0, but is 0"),
        ({"a": float("nan")}, 4, "source 'a': weight must be above 0, but is nan"),
        ({"a": float("inf")}, 4, "source 'a': weight must be above 0, but is inf"),
        ({"a": 1}, 0, "global_batch must be at least 1, but is 0"),
    ],
)
def test_a_wrong_mixture_is_named(
    kind: type, weights: dict[str, float], batch: int, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        kind(weights, batch)


def test_all_sources_need_a_sample_each() -> None:
    with pytest.raises(RecipeError, match="number of sources .* 3, but is 2"):
        AllSources({"a": 1, "b": 1, "c": 1}, 2)


@settings(deadline=None, max_examples=20)
@given(WEIGHTS, st.integers(1, 40), st.integers(0, 2**40))
def test_each_sample_counts_samples_exactly_after_every_step(
    weights: dict[str, int], batch: int, seed: int
) -> None:
    mixture, total = EachSample(weights, batch, seed), sum(weights.values())
    drawn: Counter[str] = Counter(dict.fromkeys(weights, 0))
    for step in range(60):
        assert mixture.positions(step) == dict(drawn)
        shares = mixture.draw(step)
        assert sum(share.count for share in shares) == batch
        for share in shares:
            assert share.start == drawn[share.source] and share.count > 0
            drawn[share.source] += share.count
        for name, weight in weights.items():
            assert abs(drawn[name] - Fraction((step + 1) * batch * weight, total)) < 1


ENDS = {"a": Ending("drop", 70), "b": Ending("drop", 45)}


@pytest.mark.parametrize(
    ("kind", "last_positions"),
    [
        # Whole batches of 8 only; c goes on alone.
        (OneSource, {"a": 64, "b": 40}),
        (EachSample, {"a": 70, "b": 45}),
        # Parts of 4, 3, 1; then of 6 and 2.
        (AllSources, {"a": 66, "b": 45}),
    ],
)
def test_dropped_sources_leave_the_steps_to_the_others(
    kind: type[Mixture], last_positions: dict[str, int]
) -> None:
    mixture = kind({"a": 4, "b": 3, "c": 1}, 8, endings=ENDS)
    assert mixture.end is None
    for step in range(60):
        here, there = mixture.positions(step), mixture.positions(step + 1)
        assert sum(there.values()) - sum(here.values()) == 8
    assert last_positions.items() <= mixture.positions(60).items()
    assert mixture.positions(60)["c"] + sum(last_positions.values()) == 480


@pytest.mark.parametrize("kind", [OneSource, EachSample, AllSources])
def test_a_run_stops_before_the_step_that_its_source_cannot_feed(kind: type[Mixture]) -> None:
    mixture = kind({"a": 3, "b": 1}, 8, endings={"b": Ending("stop", 21)})
    end = mixture.end
    assert end is not None
    endless = kind({"a": 3, "b": 1}, 8)
    assert endless.positions(end)["b"] <= 21 < endless.positions(end + 1)["b"]
    assert [mixture.draw(step) for step in range(end)] == [endless.draw(s) for s in range(end)]
    assert mixture.draw(end + 3) == () or kind is EachSample


def test_a_source_without_a_whole_batch_cannot_end() -> None:
    with pytest.raises(RecipeError, match=r"'b': must have .* 8 samples to end .* but has 7; let"):
        OneSource({"a": 1, "b": 1}, 8, endings={"b": Ending("drop", 7)})


@pytest.mark.parametrize("kind", [OneSource, EachSample, AllSources])
def test_a_mixture_goes_on_where_another_left_off(kind: type[Mixture]) -> None:
    before = kind({"a": 3, "b": 1}, 8, endings={"a": Ending("drop", 100)})
    begin = Begin(7, before.positions(7))
    after = kind({"c": 1, "a": 3}, 8, endings={"a": Ending("drop", 100)}, begin=begin)
    assert after.positions(7) == {"c": 0, "a": before.positions(7)["a"]}
    for step in range(7, 40):
        assert sum(share.count for share in after.draw(step)) == 8
    assert 100 - 8 < after.positions(40)["a"] <= 100


def test_weights_that_change_cannot_split_a_batch_in_fixed_parts() -> None:
    with pytest.raises(RecipeError, match="must be plain numbers .* set mixture.unit: sample"):
        AllSources(ScheduledWeights({"a": Linear(0, 1)}, 10), 8)


def test_a_recipe_names_the_mixture_by_step_and_unit() -> None:
    assert isinstance(make_mixture({"a": 1}, 4), OneSource)
    assert isinstance(make_mixture({"a": 1}, 4, unit="sample"), EachSample)
    assert isinstance(make_mixture({"a": 1}, 4, "all"), AllSources)
