import os
import sys
import threading
import time

import pytest
import torch

from ssl_scale import dist
from tests.distributed import RanksTimedOut, run_ranks

pytestmark = pytest.mark.dist


def describe_rank(factor: float) -> tuple[int, int, float, int, int]:
    total = dist.reduce(torch.tensor(factor * (dist.rank() + 1)))
    threads = torch.get_num_threads()
    return dist.rank(), dist.world_size(), float(total), threads, os.getppid()


def fail_on_rank_one() -> None:
    if dist.rank() == 1:
        raise KeyError("missing thing")
    dist.barrier()


def leave_without_a_word() -> None:
    if dist.rank() == 0:
        os._exit(7)
    dist.barrier()


def wait_for_nobody() -> None:
    if dist.rank() == 0:
        dist.barrier()
    time.sleep(100)


def loaded(module: str) -> tuple[bool, int]:
    return module in sys.modules, threading.active_count()


def variable(name: str) -> tuple[str, bool]:
    return os.environ[name], dist.is_distributed()


def test_ranks_share_a_group_and_results_come_in_rank_order():
    results = run_ranks(describe_rank, 3, 2.0)
    assert [result[:4] for result in results] == [(r, 3, 12.0, 1) for r in range(3)]


def test_ranks_are_forked_from_one_server():
    parents = {result[4] for _ in range(2) for result in run_ranks(describe_rank, 2, 1.0)}
    assert len(parents) == 1
    assert os.getpid() not in parents


def test_a_failing_rank_is_named_and_ends_the_others():
    started = time.monotonic()
    with pytest.raises(KeyError, match="missing thing") as caught:
        run_ranks(fail_on_rank_one, 2, limit_s=60)
    assert "on rank 1:" in caught.value.__notes__[0]
    assert "fail_on_rank_one" in caught.value.__notes__[0]
    assert time.monotonic() - started < 30


def test_a_rank_that_dies_is_named():
    with pytest.raises(RuntimeError, match="rank 0 must end with status 0, but ended with 7"):
        run_ranks(leave_without_a_word, 2, limit_s=60)


def test_ranks_that_hang_are_ended():
    with pytest.raises(RanksTimedOut, match="2 ranks must end in 2 s"):
        run_ranks(wait_for_nobody, 2, limit_s=2)


def test_preloaded_modules_are_there_and_no_thread_was_inherited():
    assert run_ranks(loaded, 1, "sqlite3", preload=("sqlite3",)) == [(True, 1)]


def test_a_function_may_open_its_own_group():
    result = run_ranks(variable, 1, "COLOUR", environment={"COLOUR": "red"}, group=False)
    assert result == [("red", False)]
