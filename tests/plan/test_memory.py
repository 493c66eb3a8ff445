"""Bytes of a rank by hand, in cases small enough to write down."""

import pytest

from ssl_scale.optim.lamb import LAMB
from ssl_scale.optim.lars import LARS
from ssl_scale.optim.optimizer import AdamW, Optimizer
from ssl_scale.optim.schedule import Constant
from ssl_scale.optim.sgd import SGD
from ssl_scale.plan.checkpoint_size import kept_checkpoints
from ssl_scale.plan.fitting import advise
from ssl_scale.plan.memory import RankBytes, bytes_per_rank
from ssl_scale.plan.parameters import Inventory, Part, moments_of
from ssl_scale.recipe.train_plan import TrainPlan
from ssl_scale.recipe.zero_options import ZeroOptions

M = 1_000_000


def inventory(
    *groups: tuple[int, ...], frozen: tuple[int, ...] = (), averaged: tuple[int, ...] = ()
) -> Inventory:
    """Averages follow the last trained parameters."""
    counts = iter([*[0] * (sum(map(len, groups)) - len(averaged)), *[1] * len(averaged)])
    followed = tuple(tuple(next(counts) for _ in group) for group in groups)
    return Inventory((Part("all", 0, 0),), groups, followed, frozen, averaged, (), 0, ("name",))


def test_in_whole_pieces_it_is_the_papers_table() -> None:
    whole = inventory((M,) * 4, (M,) * 4)
    found = {
        stage: bytes_per_rank(whole, stage, "bf16", 4, moments=2).states for stage in (1, 2, 3)
    }
    # 2 + 2 bytes of parameters and gradients, 4 + 8 of masters and moments, for 8 M / 4 ranks; all
    # cuts fall between tensors.
    assert found == {1: (4 * 8 + 12 * 2) * M, 2: (2 * 8 + 14 * 2) * M, 3: 16 * 2 * M}


def test_without_zero_a_rank_holds_everything_in_fp32() -> None:
    found = bytes_per_rank(inventory((M,), frozen=(M,)), 0, "fp32", 4, moments=2)
    assert (found.parameters, found.gradients, found.masters, found.moments) == (
        8 * M,
        4 * M,
        0,
        8 * M,
    )


def test_stage_2_keeps_the_gradients_whole_of_what_two_ranks_share() -> None:
    found = bytes_per_rank(inventory((600, 800, 600)), 2, "bf16", 2, moments=2)
    assert found.gradients == 2 * (600 + 800)
    assert found.masters == 4 * 1000


def test_stages_1_and_2_pad_groups() -> None:
    found = bytes_per_rank(inventory((5,), (6,)), 1, "bf16", 2, moments=1)
    assert (found.parameters, found.masters, found.moments) == (2 * 16, 4 * 8, 4 * 8)


def test_stage_3_pads_tensors_and_keeps_small_ones_whole() -> None:
    large = 100_001
    found = bytes_per_rank(inventory((large, 7)), 3, "bf16", 2, moments=2)
    assert found.parameters == 2 * (50_001 + 4 + 7)
    assert found.gradients == 2 * (50_001 + 4)
    assert found.masters == 4 * (50_001 + 4)
    assert bytes_per_rank(inventory((large, 7)), 3, "bf16", 1, 2).parameters == 2 * (large + 7)


@pytest.mark.parametrize("stage", [1, 2])
def test_up_to_stage_2_averages_lie_with_the_masters_and_their_copies_whole(stage: int) -> None:
    taught = inventory((M,), averaged=(M,))
    assert bytes_per_rank(taught, stage, "bf16", 4, 2).teachers == (2 + 4 / 4) * M
    assert bytes_per_rank(taught, stage, "fp32", 4, 2).teachers == 4 * M
    # The second rank has half of what is not followed, and all of the average.
    uneven = inventory((3 * M, M), averaged=(M,))
    assert bytes_per_rank(uneven, stage, "bf16", 2, 2).teachers == (2 + 4) * M


def test_teachers_are_shared_out_under_stage_3() -> None:
    taught = inventory((M,), averaged=(M,))
    found = {ranks: bytes_per_rank(taught, 3, "bf16", ranks, 2).teachers for ranks in (1, 2, 4)}
    assert found == {1: 6 * M, 2: 3 * M, 4: 1.5 * M}


def test_what_is_offloaded_lies_on_the_host() -> None:
    whole = inventory((M,) * 4)
    options = ZeroOptions(offload_optimizer=True, offload_parameters=True)
    found = bytes_per_rank(whole, 3, "bf16", 4, 2, options)
    assert (found.states, found.host) == (0, (2 + 4 + 4 + 8) * M)
    assert bytes_per_rank(whole, 3, "bf16", 4, 2).host == 0


def test_buckets_are_as_large_as_they_are_set() -> None:
    options = ZeroOptions(bucket=10 * M)
    assert bytes_per_rank(inventory((M,)), 2, "bf16", 2, 2, options).temporary == 2 * 2 * 10 * M
    once = ZeroOptions(bucket=10 * M, overlap=False)
    assert bytes_per_rank(inventory((M,)), 2, "bf16", 2, 2, once).temporary == 2 * 10 * M


@pytest.mark.parametrize(
    ("optim", "moments"),
    [
        (AdamW(Constant(0.1)), 2),
        (LAMB(Constant(0.1)), 2),
        (LARS(Constant(0.1)), 1),
        (SGD(Constant(0.1)), 1),
    ],
)
def test_an_optimizer_tells_what_it_remembers(optim: Optimizer, moments: int) -> None:
    assert moments_of(optim) == moments


def rank(num_bytes: float) -> RankBytes:
    return RankBytes(round(num_bytes), 0, 0, 0, 0)


def test_advice_is_the_smallest_stage_that_fits() -> None:
    ranks = {1: rank(90e9), 2: rank(70e9), 3: rank(20e9)}
    assert advise(lambda _: ranks, lambda _: True, 8, 80 * 10**9) == "train.zero=2 fits"


def test_advice_goes_on_to_more_gpus_while_the_batch_can_be_cut() -> None:
    def ranks_of(world_size: int) -> dict[int, RankBytes]:
        return {2: rank(2000e9 / world_size + 40e9), 3: rank(2000e9 / world_size)}

    found = advise(ranks_of, lambda ranks: ranks <= 64, 8, 80 * 10**9)
    assert found == "train.zero=3 on 32 GPUs fits"
    assert "on up to 16 GPUs" in advise(ranks_of, lambda ranks: ranks <= 16, 8, 80 * 10**9)


def test_what_a_run_keeps_is_newest_periodic_and_best() -> None:
    train = TrainPlan(steps=1050, save_every=100, keep_last=2, keep_every=500)
    assert kept_checkpoints(train, 1050) == len({1000, 1050, 500})
    best = TrainPlan(steps=50, save_every=100, keep_last=2, best="held_out/loss/clip")
    assert kept_checkpoints(best, 50) == 2
