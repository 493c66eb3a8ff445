"""Waiting is time spent in getting batches, and nothing else."""

import time
from collections.abc import Generator

from ssl_scale.data.step_batches import StepBatches
from ssl_scale.train.waiting import Waiting

closed = []


def slow(steps: int, seconds: float) -> Generator[StepBatches, None, None]:
    try:
        for step in range(steps):
            time.sleep(seconds)
            yield StepBatches(step, ())
    finally:
        closed.append(steps)


def test_it_adds_up_what_making_steps_takes_and_not_what_is_done_with_them() -> None:
    waiting = Waiting()
    for _ in waiting.over(slow(3, 0.05)):
        time.sleep(0.5)
    assert 0.15 <= waiting.read() < 0.5
    assert waiting.read() == 0


def test_steps_that_nobody_wants_any_more_are_not_made() -> None:
    steps = Waiting().over(slow(7, 0.0))
    assert next(steps).step == 0
    steps.close()
    assert closed[-1] == 7
