"""Schedules at their corners, and as pure functions."""

import math

import pytest

from ssl_scale.optim.schedule import (
    Constant,
    Cosine,
    Infinite,
    Linear,
    Schedule,
    WarmupCosine,
    WarmupStableDecay,
)

CORNERS = [
    (Constant(0.3), {0.0: 0.3, 0.7: 0.3, 1.0: 0.3}),
    (Linear(1.0, 3.0), {0.0: 1.0, 0.5: 2.0, 1.0: 3.0}),
    (Linear(1.0, 3.0, until=0.5), {0.25: 2.0, 0.5: 3.0, 1.0: 3.0}),
    (Cosine(0.99, 1.0), {0.0: 0.99, 0.5: 0.995, 1.0: 1.0}),
    (WarmupCosine(2.0, warmup=0.2, end=0.5), {0.0: 0.0, 0.1: 1.0, 0.2: 2.0, 0.6: 1.25, 1.0: 0.5}),
    (WarmupCosine(2.0, warmup=0.0), {0.0: 2.0, 0.5: 1.0, 1.0: 0.0}),
    (
        WarmupStableDecay(2.0, warmup=0.1, decay=0.2, end=1.0),
        {0.0: 0.0, 0.05: 1.0, 0.1: 2.0, 0.8: 2.0, 0.9: 1.5, 1.0: 1.0},
    ),
    (
        Infinite(4.0, 1.0, warmup=0.125, cooldown=0.25, anneal=0.25, end=0.25),
        {
            0.0: 0.0,
            0.0625: 2.0,
            0.125: 4.0,
            0.25: 2.5,
            0.375: 1.0,
            0.75: 1.0,
            0.875: 0.5,
            1.0: 0.25,
        },
    ),
    (Infinite(4.0, 1.0, warmup=0.0, cooldown=0.5), {0.0: 4.0, 0.25: 2.5, 0.5: 1.0, 1.0: 1.0}),
]


@pytest.mark.parametrize(("schedule", "corners"), CORNERS)
def test_schedules_pass_through_their_corners(
    schedule: Schedule, corners: dict[float, float]
) -> None:
    for progress, value in corners.items():
        assert schedule(progress) == pytest.approx(value)


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in CORNERS])
def test_schedules_have_no_jumps(schedule: Schedule) -> None:
    values = [schedule(step / 1000) for step in range(1001)]
    largest = max(abs(later - sooner) for sooner, later in zip(values, values[1:], strict=False))
    assert largest < 0.05 and all(math.isfinite(value) for value in values)


def test_warm_up_and_decay_must_fit_into_training() -> None:
    with pytest.raises(ValueError, match="warmup . decay must be at most 1, but is 1.2"):
        WarmupStableDecay(1.0, warmup=0.7, decay=0.5)


def test_an_infinite_schedule_follows_its_papers_formulas() -> None:
    peak, constant, end = 3e-4, 1.65e-4, 1.5e-5
    schedule = Infinite(peak, constant, warmup=0.1, cooldown=0.3, anneal=0.2, end=end)
    for step in range(1001):
        n = step / 1000
        if n <= 0.1:
            wanted = peak * n / 0.1
        elif n <= 0.4:
            wanted = constant + (peak - constant) / 2 * (1 + math.cos(math.pi * (n - 0.1) / 0.3))
        elif n <= 0.8:
            wanted = constant
        else:
            wanted = constant * (end / constant) ** ((n - 0.8) / 0.2)
        assert schedule(n) == pytest.approx(wanted, rel=1e-12, abs=0)


def test_an_infinite_schedule_never_rises_after_warm_up() -> None:
    schedule = Infinite(2.0, 0.5, warmup=0.1, cooldown=0.2, anneal=0.3, end=0.1)
    values = [schedule(step / 1000) for step in range(100, 1001)]
    assert values == sorted(values, reverse=True)


def test_an_infinite_schedules_phases_must_fit_into_training() -> None:
    with pytest.raises(ValueError, match="warmup . cooldown . anneal must be at most 1, .* 1.1"):
        Infinite(1.0, 0.5, warmup=0.5, cooldown=0.5, anneal=0.1)


def test_a_bare_number_is_constant() -> None:
    assert Schedule.from_scalar(0.4)(0.9) == 0.4
