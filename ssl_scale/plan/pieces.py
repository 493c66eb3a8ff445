"""How tensors fall into pieces of ranks: laid flat and cut (stages 1, 2), or each cut (stage 3)."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

# A tensor of no more elements stays whole under stage 3: DeepSpeed's own setting.
PERSISTENT = 100_000


def flat_pieces(groups: Sequence[Sequence[int]], world_size: int) -> list[int]:
    """Elements of a rank's piece of each group: stages 1 and 2 pad to two elements a rank."""
    return [2 * -(-sum(group) // (2 * world_size)) for group in groups]


def own_pieces(numels: Iterable[int], world_size: int) -> int:
    """Elements of a rank's pieces of tensors that are cut one by one, each padded."""
    return sum(-(-numel // world_size) for numel in numels)


def kept_whole(numels: Iterable[int], world_size: int) -> int:
    """Elements of tensors that stay whole beside their pieces; with one rank these are one."""
    return sum(numel for numel in numels if numel <= PERSISTENT) if world_size > 1 else 0


def most_touched(groups: Sequence[Sequence[int]], pieces: Sequence[int], world_size: int) -> int:
    """Elements of the tensors, whole, of which the fullest rank has any element."""
    edges = [[0, *accumulate(group)] for group in groups]
    return max(
        sum(
            _touched(known, rank * piece, (rank + 1) * piece)
            for known, piece in zip(edges, pieces, strict=True)
        )
        for rank in range(world_size)
    )


def _touched(edges: Sequence[int], start: int, stop: int) -> int:
    if start >= edges[-1]:
        return 0
    first = bisect_right(edges, start) - 1
    last = min(bisect_left(edges, stop), len(edges) - 1)
    return edges[last] - edges[first]


def most_followed(
    groups: Sequence[Sequence[int]],
    followed: Sequence[Sequence[int]],
    pieces: Sequence[int],
    world_size: int,
) -> int:
    """Elements of averages on the fullest rank, where each lies with the piece that it follows.

    Args:
        groups: elements of each tensor, group by group.
        followed: how many averages each has.
        pieces: elements of a rank's piece of each group.
        world_size: ranks.
    """
    sums = [_Sums(group, counts) for group, counts in zip(groups, followed, strict=True)]
    return max(
        sum(
            known.before((rank + 1) * piece) - known.before(rank * piece)
            for known, piece in zip(sums, pieces, strict=True)
        )
        for rank in range(world_size)
    )


class _Sums:
    """Elements of averages of what lies before a place of a group that is laid flat."""

    def __init__(self, group: Sequence[int], counts: Sequence[int]) -> None:
        self.edges = [0, *accumulate(group)]
        self.counts = counts
        products = (numel * count for numel, count in zip(group, counts, strict=True))
        self.sums = [0, *accumulate(products)]

    def before(self, place: int) -> int:
        """Up to, without, this element."""
        if place >= self.edges[-1]:
            return self.sums[-1]
        tensor = bisect_right(self.edges, place) - 1
        return self.sums[tensor] + self.counts[tensor] * (place - self.edges[tensor])
