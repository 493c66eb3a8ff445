"""Whatever kills a run, its steps are trained on the samples they would have been."""

from pathlib import Path

import pytest

from tests.train.kills import strike

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 60


def test_five_kills_change_no_sample_of_any_step(tmp_path: Path) -> None:
    run = strike(tmp_path, 5, STEPS, 7)
    assert run.kills == 5
    assert list(run.straight) == list(range(STEPS))
    assert run.struck == run.straight
    assert {source for samples in run.straight.values() for source, _ in samples} == {
        "pictures",
        "texts",
    }
