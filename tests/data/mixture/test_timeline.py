"""Exact proportions at every prefix: constant weights, schedules, sources that end."""

from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_scale.data.mixture.stretches import ConstantWeights, ScheduledWeights
from ssl_scale.data.mixture.timeline import Ending, Timeline
from ssl_scale.errors import RecipeError
from ssl_scale.optim.schedule import Constant, Cosine, Linear

NAMES = "abcd"
KINDS = st.sampled_from(["stop", "drop"])
WEIGHTS = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 30), min_size=1)
SCHEDULES = st.one_of(
    st.integers(1, 9).map(Constant),
    st.tuples(st.integers(0, 9), st.integers(1, 9)).map(lambda ends: Linear(*ends)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda ends: Cosine(*ends)),
)


def drawn(timeline: Timeline, draw: int) -> str:
    """The one source of a draw."""
    here, there = timeline.before(draw), timeline.before(draw + 1)
    (name,) = (name for name in here if there[name] != here[name])
    assert there[name] == here[name] + 1
    return name


@settings(deadline=None, max_examples=25)
@given(
    st.dictionaries(st.sampled_from(NAMES), SCHEDULES, min_size=1),
    st.integers(1, 600),
    st.integers(0, 2**40),
)
def test_scheduled_counts_are_within_two_of_the_staircase_at_every_draw(
    schedules: Mapping[str, Callable[[float], float]], num_draws: int, seed: int
) -> None:
    if not any(schedule(0.5 / num_draws) for schedule in schedules.values()):
        return
    weights = ScheduledWeights(schedules, num_draws)
    timeline = Timeline(weights, {}, seed)
    counts, due = Counter(dict.fromkeys(schedules, 0)), dict.fromkeys(schedules, Fraction(0))
    for draw in range(num_draws):
        assert timeline.before(draw) == dict(counts)
        # One for the draws of the step of the staircase, one for what is owing at its start.
        assert all(abs(counts[name] - due[name]) < 2 for name in due)
        if draw % weights.length == 0:
            assert all(abs(counts[name] - due[name]) <= 1 for name in due)
        stair = weights.stretch(draw // weights.length).weights
        name = drawn(timeline, draw)
        assert stair[name] > 0
        counts[name] += 1
        whole = sum(Fraction(str(weight)) for weight in stair.values())
        for name in due:
            due[name] += Fraction(str(stair[name])) / whole


def test_a_long_schedule_is_followed_to_a_ten_thousandth() -> None:
    num_draws = 10**12
    timeline = Timeline(
        ScheduledWeights({"a": Linear(0, 1), "b": Linear(1, 0), "c": Constant(0.5)}, num_draws),
        {},
        seed=0,
    )
    for progress in (0.1, 0.58, 1.0):
        counts = timeline.before(int(num_draws * progress))
        assert sum(counts.values()) == int(num_draws * progress)
        # The weights add up to 1.5, so a's due is the integral of x / 1.5.
        assert counts["a"] / num_draws == pytest.approx(progress**2 / 3, abs=2e-4)
        assert counts["c"] / num_draws == pytest.approx(progress / 3, abs=2e-4)


def test_after_its_last_step_a_schedule_stays_where_it_is() -> None:
    timeline = Timeline(ScheduledWeights({"a": Linear(0, 1), "b": Constant(3)}, 200), {}, seed=0)
    here, there = timeline.before(10_000), timeline.before(10_400)
    assert there == {"a": here["a"] + 100, "b": here["b"] + 300}


def test_a_schedule_that_begins_late_goes_on_from_its_progress() -> None:
    schedules = {"a": Linear(0, 1, until=0.5), "b": Constant(1)}
    late = ScheduledWeights(schedules, 1000, first=500)
    assert late.stretch(0).weights == {"a": 1.0, "b": 1}
    assert late.stretch(50).length is None


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ({"a": Constant(1), "b": Linear(1, -1)},
         "source 'b': weight must be at least 0 throughout, but is -0.01 at progress 0.505"),
        ({"a": Linear(0, 1, until=0.0), "b": Linear(float("nan"), 1)},
         "source 'b': weight must be .* but is nan"),
        ({"a": Linear(1, 0, until=0.5)}, "none has at progress 0.505"),
    ],
)  # fmt: skip
def test_a_schedule_out_of_range_is_refused(
    schedules: Mapping[str, Callable[[float], float]], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        Timeline(ScheduledWeights(schedules, 100), {}, 0).before(100)


def naive_draws(
    weights: Mapping[str, int], endings: Mapping[str, Ending], seed: int, most: int
) -> tuple[list[str], bool]:
    """Draw by draw: when a source's turn comes and it has nothing left, the others begin anew."""
    names: list[str] = []
    left = {name: ending.count for name, ending in endings.items()}
    while weights:
        endless, start = Timeline(ConstantWeights(weights), {}, seed), len(names)
        while len(names) < most:
            name = drawn(endless, len(names) - start)
            if left.get(name, 1) == 0:
                break
            left[name] = left.get(name, most + 1) - 1
            names.append(name)
        else:
            return names, False
        if endings[name].kind == "stop":
            return names, True
        weights = {other: weight for other, weight in weights.items() if other != name}
    return names, True


@settings(deadline=None, max_examples=25)
@given(
    WEIGHTS,
    st.dictionaries(st.sampled_from(NAMES), st.builds(Ending, KINDS, st.integers(0, 40))),
    st.integers(0, 2**40),
)
def test_who_ends_leaves_the_others_their_exact_proportions(
    weights: dict[str, int], endings: dict[str, Ending], seed: int
) -> None:
    endings = {name: ending for name, ending in endings.items() if name in weights}
    names, has_ended = naive_draws(weights, endings, seed, most=300)
    timeline = Timeline(ConstantWeights(weights), endings, seed)
    counts = Counter(dict.fromkeys(weights, 0))
    for draw, name in enumerate(names):
        assert timeline.before(draw) == dict(counts)
        counts[name] += 1
    assert timeline.before(len(names)) == dict(counts)
    if has_ended:
        assert timeline.end == len(names)
        assert timeline.before(len(names) + 9) == dict(counts)
    else:
        assert timeline.end is None or timeline.end > len(names)


@settings(deadline=None, max_examples=25)
@given(
    st.dictionaries(st.sampled_from(NAMES), SCHEDULES, min_size=2),
    st.dictionaries(st.sampled_from(NAMES), st.builds(Ending, KINDS, st.integers(0, 40))),
    st.integers(100, 400),
)
def test_under_a_schedule_too_nobody_gives_more_than_he_has(
    schedules: Mapping[str, Callable[[float], float]], endings: dict[str, Ending], num_draws: int
) -> None:
    if not any(schedule(0.5 / num_draws) for schedule in schedules.values()):
        return
    endings = {name: ending for name, ending in endings.items() if name in schedules}
    timeline = Timeline(ScheduledWeights(schedules, num_draws), endings, seed=1)
    counts = Counter(dict.fromkeys(schedules, 0))
    end = num_draws if timeline.end is None else min(timeline.end, num_draws)
    for draw in range(end):
        counts[drawn(timeline, draw)] += 1
    assert all(counts[name] <= ending.count for name, ending in endings.items())
    if timeline.end is not None and timeline.end <= num_draws:
        spent = {name for name, ending in endings.items() if counts[name] == ending.count}
        stays = set(schedules) - {name for name in spent if endings[name].kind == "drop"}
        is_stopped = any(endings[name].kind == "stop" for name in spent)
        assert is_stopped or not any(schedules[name](end / num_draws) for name in stays)
