"""A run that is stuck is found out, explained and ended."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ssl_scale import dist
from ssl_scale.train.callbacks.watchdog import read_beats, verdict, where_it_stands
from tests.distributed import run_ranks
from tests.train.tiny import PRELOAD, fit_ranks, make_recipe


def beat(number: int, collective: str | None = "all_reduce", **more: Any) -> dict[str, Any]:
    return {"beats": number, "host": "n1", "stands": "work (a/b.py:3)", "collective": collective}


def test_a_rank_that_does_not_beat_is_named_first() -> None:
    before = {0: beat(5), 1: beat(5, None), 2: beat(5, None)}
    now = {0: beat(7), 1: beat(5, None), 2: beat(7, None)}
    assert verdict(before, now, 3) == "rank 1 on n1 gives no sign of life"
    assert verdict(before, now, 4) == "rank 1 on n1, rank 3 give no sign of life"


def test_else_one_that_is_in_no_collective_and_where_it_is() -> None:
    before, now = {0: beat(5), 1: beat(5)}, {0: beat(7), 1: beat(7, None)}
    assert verdict(before, now, 2) == "the others wait for rank 1 on n1, in work (a/b.py:3)"


def test_ranks_in_different_collectives_are_told_as_they_are() -> None:
    before, now = {0: beat(5), 1: beat(5)}, {0: beat(7), 1: beat(7, "all_gather")}
    assert verdict(before, now, 2) == "all ranks are in all_gather, all_reduce"


def test_a_thread_is_placed_by_its_innermost_frame() -> None:
    place, collective = where_it_stands(sys._getframe())
    assert re.fullmatch(r"test_a_thread\w+ \(train/test_watchdog.py:\d+\)", place)
    assert collective is None


def be_stopped_for_a_while(run_folder: Path) -> None:
    """Do no step for a second, and be stopped in the middle of it for much longer."""
    from ssl_scale.train.callbacks.watchdog import Watchdog

    watchdog = Watchdog(run_folder, rank=0, world_size=1, stuck_after_s=3, every_s=0.1)
    watchdog._progress.move()
    watchdog._thread.start()
    stopping = f"sleep 0.2; kill -STOP {os.getpid()}; sleep 5; kill -CONT {os.getpid()}"
    with subprocess.Popen(["bash", "-c", stopping]):
        for _ in range(10):
            time.sleep(0.1)
    watchdog._ended.set()


@pytest.mark.dist
def test_the_time_in_which_a_run_is_suspended_does_not_count(tmp_path: Path) -> None:
    run_ranks(be_stopped_for_a_while, 1, tmp_path, preload=PRELOAD)
    assert read_beats(tmp_path)[0]["seconds_since_step"] < 3


def sleep_for_ever() -> None:
    """Let rank 1 sleep in its third step."""
    from ssl_scale.train.ops import Ops

    forward = Ops._forward

    def altered(self: Ops, micro: int) -> Any:
        if (self.index, dist.rank()) == (2, 1):
            time.sleep(600)
        return forward(self, micro)

    Ops._forward = altered  # type: ignore[method-assign]


@pytest.mark.dist
def test_a_rank_that_sleeps_is_named_with_its_place_and_all_ranks_end(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 70") as told:
        fit_ranks(
            make_recipe(tmp_path), tmp_path / "run", 2, "train.stuck_after_s=4",
            change=sleep_for_ever, limit_s=110,
        )  # fmt: skip
    assert re.search(
        r"step 3 has not ended in 4 s .*the others wait for rank 1 on .*, in altered "
        r"\(train/test_watchdog.py:\d+\)",
        "".join(told.value.__notes__),
    )
    stacks = [(tmp_path / f"run/logs/stuck-rank-{rank}.txt").read_text() for rank in (0, 1)]
    assert "distributed" in stacks[0] and "in altered" in stacks[1]
    assert {rank: each["step"] for rank, each in read_beats(tmp_path / "run").items()} == {
        0: 2,
        1: 2,
    }
