"""A hundred kills of one rank or of all, while saving too, leave no trace in what a run becomes."""

from pathlib import Path

import pytest
import torch

from tests.torture.table import record
from tests.train.kills import RANKS, strike
from tests.train.tiny import saved

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

SEED, KILLS, STEPS = 70, 50, 360


@pytest.mark.parametrize("stage", [2, 3])
def test_fifty_kills_of_ranks_leave_every_tensor_as_it_would_have_been(
    stage: int, tmp_path: Path
) -> None:
    run = strike(
        tmp_path,
        KILLS,
        STEPS,
        SEED + stage,
        f"train.zero={stage}",
        victims=("one rank", "all ranks"),
        moments=("any", "saving"),
        workers=0,
    )
    assert run.kills == KILLS and run.saves_cut_off >= KILLS // 10
    assert run.struck == run.straight and len(run.straight) == STEPS
    one, other = saved(tmp_path / "straight"), saved(tmp_path / "struck")
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    record(
        f"kills of ranks, ZeRO-{stage}, {RANKS} processes",
        SEED + stage,
        steps=STEPS,
        kills_of_one=run.by_victims["one rank"],
        kills_of_all=run.by_victims["all ranks"],
        saves_cut_off=run.saves_cut_off,
        attempts=run.attempts,
        tensors_that_differ=0,
    )
