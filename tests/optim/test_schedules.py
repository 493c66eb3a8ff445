"""Schedules at their corners, and as pure functions."""

import math

import pytest

from ssl_scale.optim.schedule import (
    Constant,
    Cosine,
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


def test_a_bare_number_is_constant() -> None:
    assert Schedule.from_scalar(0.4)(0.9) == 0.4
