"""Fifty kills change no sample of any step."""

from pathlib import Path

import pytest

from tests.torture.table import record
from tests.train.kills import WORKERS, strike

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

SEED, KILLS, STEPS = 50, 50, 600


def test_fifty_kills_change_no_sample_of_any_step(tmp_path: Path) -> None:
    run = strike(tmp_path, KILLS, STEPS, SEED)
    assert run.kills == KILLS
    assert list(run.straight) == list(range(STEPS))
    changed = [step for step in run.straight if run.struck.get(step) != run.straight[step]]
    assert changed == []
    record(
        f"data order, 2 processes x {WORKERS} workers",
        SEED,
        steps=STEPS,
        kills=run.kills,
        attempts=run.attempts,
        steps_that_differ=0,
    )
