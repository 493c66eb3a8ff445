"""Bytes that one rank holds under each ZeRO stage, as DeepSpeed lays tensors out for this engine.

Paper: ZeRO: Memory Optimizations Toward Training Trillion Parameter Models, arXiv 1910.02054,
section 5. In numbers for N trained parameters, W ranks, s bytes a parameter (4 in fp32, 2 in bf16)
and m moments:

=====  ==========  =========  =======  ========
stage  parameters  gradients  masters  moments
=====  ==========  =========  =======  ========
0      4 N         4 N        0        4 m N
1      s N         s N        4 N / W  4 m N / W
2      s N         s N / W    4 N / W  4 m N / W
3      s N / W     s N / W    4 N / W  4 m N / W
=====  ==========  =========  =======  ========

What that leaves out is not small in small models, and is counted here: what straddles two ranks'
pieces stays whole (stage 2); each tensor's pieces are padded, and small tensors stay whole as well
(stage 3); masters are separate also in fp32 (stages 1 to 3). Averages of teachers are fp32 beside
the precision's own copy.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate

from ssl_scale.plan.parameters import Inventory

# DeepSpeed's own settings, which the engine leaves as they are; numbers of elements.
REDUCE_BUCKET = 500_000_000
PERSISTENT = 100_000  # a smaller tensor stays whole under stage 3
MAX_LIVE = 1_000_000_000  # stage 3 holds on to gathered parameters up to so many
SUB_GROUP = 1_000_000_000  # stage 3 steps so many at a time
_ALIGNED = 2  # stages 1 and 2 pad each group to this many elements a rank

ITEM_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class RankBytes:
    """What the fullest rank holds, in bytes.

    Args:
        parameters: what forward passes use of the student; under stage 3 the rank's pieces.
        gradients: as they are when the optimizer is about to step.
        masters: fp32 values that the optimizer moves, where they are not the parameters.
        moments: the optimizer's.
        teachers: their parameters and fp32 averages.
        buffers: batch statistics, queues, centres.
        temporary: buckets in which gradients are reduced and, under stage 3, parameters gathered
            for the passes; or the fp32 gradients of the step, if these are more.
        activations: kept for the backward pass, of one micro-batch.
    """

    parameters: int
    gradients: int
    masters: int
    moments: int
    teachers: int
    buffers: int = 0
    temporary: int = 0
    activations: int = 0

    @property
    def states(self) -> int:
        """Parameters, gradients and what the optimizer holds: what ZeRO shares out."""
        return self.parameters + self.gradients + self.masters + self.moments

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, each.name) for each in fields(self))


def bytes_per_rank(
    inventory: Inventory,
    stage: int,
    precision: str,
    world_size: int,
    moments: int,
    overlaps: bool = True,
    activations: float = 0,
) -> RankBytes:
    """What a rank holds.

    Args:
        inventory: the system's tensors.
        stage: ZeRO stage, 0 to 3.
        precision: ``fp32``, ``bf16`` or ``fp16``; stage 0 knows fp32 only.
        world_size: data ranks.
        moments: the optimizer's, see `moments_of`.
        overlaps: whether reducing overlaps with the backward pass, as on GPUs: two buckets.
        activations: bytes of one micro-batch.
    """
    layouts = {0: _whole, 1: _flattened, 2: _flattened, 3: _partitioned}
    found = layouts[stage](inventory, stage, ITEM_BYTES[precision], world_size, overlaps)
    stepped = found["stepped"]
    return RankBytes(
        parameters=found["parameters"],
        gradients=found["gradients"],
        masters=4 * stepped if stage else 0,
        moments=4 * stepped * moments,
        teachers=found["teachers"],
        buffers=inventory.buffers,
        temporary=found["temporary"],
        activations=round(activations),
    )


def _whole(
    inventory: Inventory, stage: int, size: int, world_size: int, overlaps: bool
) -> dict[str, int]:
    bucket = min(inventory.trained, REDUCE_BUCKET) if world_size > 1 else 0
    return {
        "parameters": size * (inventory.trained + sum(inventory.frozen)),
        "gradients": size * inventory.trained,
        "stepped": inventory.trained,
        "teachers": _teachers(inventory, size, sum(inventory.taught), sum(inventory.averaged)),
        "temporary": size * bucket,
    }


def _flattened(
    inventory: Inventory, stage: int, size: int, world_size: int, overlaps: bool
) -> dict[str, int]:
    pieces = [
        _padded(sum(group), _ALIGNED * world_size) // world_size for group in inventory.groups
    ]
    kept = inventory.trained
    if stage == 2:
        kept = _fullest(inventory.groups, pieces, world_size)
    return {
        "parameters": size * (sum(pieces) * world_size + sum(inventory.frozen)),
        "gradients": size * kept,
        "stepped": sum(pieces),
        "teachers": _teachers(inventory, size, sum(inventory.taught), sum(inventory.averaged)),
        "temporary": max((2 if overlaps else 1) * size * REDUCE_BUCKET, 4 * max(pieces, default=0)),
    }


def _partitioned(
    inventory: Inventory, stage: int, size: int, world_size: int, overlaps: bool
) -> dict[str, int]:
    trained = [numel for group in inventory.groups for numel in group]
    mine, theirs = [*trained, *inventory.frozen], inventory.taught
    gathered = min(sum(numel for numel in (*mine, *theirs) if numel > PERSISTENT), MAX_LIVE)
    stepped = _pieces(trained, world_size)
    return {
        "parameters": size * (_pieces(mine, world_size) + _kept_whole(mine, world_size)),
        "gradients": size * stepped,
        "stepped": stepped,
        "teachers": _teachers(
            inventory,
            size,
            _pieces(theirs, world_size) + _kept_whole(theirs, world_size),
            _pieces(inventory.averaged, world_size),
        ),
        "temporary": max(
            size * (REDUCE_BUCKET + (gathered if world_size > 1 else 0)),
            4 * min(stepped, SUB_GROUP),
        ),
    }


def _teachers(inventory: Inventory, size: int, stored: int, averaged: int) -> int:
    return size * stored + (4 * averaged if size < 4 else 0)


def _padded(numel: int, multiple: int) -> int:
    return -(-numel // multiple) * multiple


def _pieces(numels: Iterable[int], world_size: int) -> int:
    """Elements of one rank's pieces, each tensor's padded."""
    return sum(-(-numel // world_size) for numel in numels)


def _kept_whole(numels: Iterable[int], world_size: int) -> int:
    """Elements of tensors that stay whole beside their pieces; with one rank these are one."""
    return sum(numel for numel in numels if numel <= PERSISTENT) if world_size > 1 else 0


def _fullest(groups: Sequence[Sequence[int]], pieces: Sequence[int], world_size: int) -> int:
    """Elements of the tensors, whole, that the fullest rank has any element of."""
    starts = [[0, *accumulate(group)] for group in groups]
    return max(
        sum(
            _touched(edges, rank * piece, (rank + 1) * piece)
            for edges, piece in zip(starts, pieces, strict=True)
        )
        for rank in range(world_size)
    )


def _touched(edges: Sequence[int], start: int, stop: int) -> int:
    """Elements of tensors with these edges that reach into a stretch of them all, laid flat."""
    if start >= edges[-1]:
        return 0
    first = bisect_right(edges, start) - 1
    last = min(bisect_left(edges, stop), len(edges) - 1)
    return edges[last] - edges[first]
