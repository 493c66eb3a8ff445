"""Whether a rank's bytes fit into a GPU, and what would make them fit."""

from collections.abc import Callable, Mapping

from ssl_scale.plan.memory import RankBytes

# A GPU's own context and kernels, and what its allocator cannot use between two tensors.
RESERVED = 1.5 * 2**30
_MOST_RANKS = 1 << 16


def fits(rank: RankBytes, memory_bytes: int) -> bool:
    """Whether a rank's bytes fit beside what a GPU needs for itself."""
    return rank.total + RESERVED <= memory_bytes


def advise(
    ranks_of: Callable[[int], Mapping[int, RankBytes]],
    may_have: Callable[[int], bool],
    world_size: int,
    memory_bytes: int,
) -> str:
    """The smallest stage that fits; where none does, the smallest number of GPUs, by doubling.

    Args:
        ranks_of: world size -> stage -> bytes of a rank.
        may_have: whether the recipe's batch can be cut for so many ranks.
        world_size: what is planned.
        memory_bytes: of a GPU.
    """
    fitting = [stage for stage, rank in ranks_of(world_size).items() if fits(rank, memory_bytes)]
    if fitting:
        return f"train.zero={min(fitting)} fits"
    more = 2 * world_size
    while more <= _MOST_RANKS and may_have(more):
        fitting = [stage for stage, rank in ranks_of(more).items() if fits(rank, memory_bytes)]
        if fitting:
            return f"train.zero={min(fitting)} on {more} GPUs fits"
        more *= 2
    return (
        f"no stage on up to {more // 2} GPUs does: raise train.accumulate, take a smaller "
        "data.global_batch, set `recompute: true` on encoders, or take a larger GPU"
    )
