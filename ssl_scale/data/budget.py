"""Micro-batches by tokens: which samples of a step go together, worked out from lengths alone.

All ranks work out the same plan for the whole of a step. How many micro-batches it takes follows
from the lengths; what is trained on in a step does not depend on it.
"""

import heapq
from dataclasses import dataclass

import numpy as np

from ssl_scale.data.seeds import Whole


@dataclass(frozen=True, eq=False)
class TokenPlan:
    """Samples dealt out by length.

    Args:
        groups: micro-batches > ranks > places of samples in what was given; a rank may have none.
        tokens: of all samples.
        places: for tokens, that all ranks together make or wait for: the fullest rank of a
            micro-batch counts for every rank.
    """

    groups: list[list[Whole]]
    tokens: int
    places: int


def pack(lengths: Whole, max_tokens: int, world_size: int) -> TokenPlan:
    """As few micro-batches as hold the tokens, all about equally full; nothing is padded.

    The longest sample goes first, always to where there is least (R. Graham, "Bounds on
    multiprocessing timing anomalies", SIAM J. Appl. Math. 17, 1969): ranks differ by less than a
    sample. A sample longer than the limit has a place of its own.
    """
    total = int(lengths.sum())
    least = int(np.minimum(lengths, max_tokens).sum())
    micros = max(1, -(-least // (max_tokens * world_size)))
    while True:
        bins, loads = _deal(lengths, micros * world_size)
        is_alone = np.array([len(members) for members in bins]) <= 1
        if ((loads <= max_tokens) | is_alone).all():
            break
        micros += 1
    # Bins of about the same load side by side: ranks wait for the fullest of a micro-batch.
    order = np.argsort(-loads, kind="stable").reshape(micros, world_size)
    groups = [[bins[number] for number in row] for row in order.tolist()]
    places = int(loads[order].max(axis=1).sum()) * world_size
    return TokenPlan(groups, total, places)


def _deal(lengths: Whole, num_bins: int) -> tuple[list[Whole], Whole]:
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    loads = np.zeros(num_bins, dtype=np.int64)
    # Of equally full ones, the one with fewer samples: those without tokens are dealt out too.
    heap = [(0, 0, number) for number in range(num_bins)]
    for sample in np.argsort(-lengths, kind="stable").tolist():
        load, count, number = heap[0]
        bins[number].append(sample)
        loads[number] = load = load + int(lengths[sample])
        heapq.heapreplace(heap, (load, count + 1, number))
    return [np.sort(np.array(members, dtype=np.int64)) for members in bins], loads


def bucket(lengths: Whole, max_tokens: int, world_size: int) -> TokenPlan:
    """Samples of similar length together, as many as fit when padded to the longest of them."""
    order = np.argsort(-lengths, kind="stable")
    groups, places, start = [], 0, 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        each = max(1, max_tokens // longest)
        members = order[start : start + each * world_size]
        groups.append([np.sort(members[rank::world_size]) for rank in range(world_size)])
        places += -(-len(members) // world_size) * longest * world_size
        start += len(members)
    return TokenPlan(groups, int(lengths.sum()), places)
