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
(stage 3); masters are separate also in fp32 (stages 1 to 3). Teachers' averages are fp32 beside the
precision's own copy, and lie as the masters do that they follow.
"""

from dataclasses import dataclass, fields, replace

from ssl_scale.plan.parameters import Inventory
from ssl_scale.plan.pieces import (
    PERSISTENT,
    flat_pieces,
    kept_whole,
    most_followed,
    most_touched,
    own_pieces,
)
from ssl_scale.recipe.zero_options import ZeroOptions

# DeepSpeed's own settings, which the engine leaves as they are; numbers of elements.
REDUCE_BUCKET = 500_000_000
MAX_LIVE = 1_000_000_000  # stage 3 holds on to gathered parameters up to so many
SUB_GROUP = 1_000_000_000  # stage 3 steps so many at a time

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
        host: in host memory, where the optimizer or parameters are offloaded; not in `total`.
    """

    parameters: int
    gradients: int
    masters: int
    moments: int
    teachers: int
    buffers: int = 0
    temporary: int = 0
    activations: int = 0
    host: int = 0

    @property
    def states(self) -> int:
        """Parameters, gradients and what the optimizer holds: what ZeRO shares out."""
        return self.parameters + self.gradients + self.masters + self.moments

    @property
    def total(self) -> int:
        """All that is on the device."""
        return sum(int(getattr(self, each.name)) for each in fields(self)) - self.host


def bytes_per_rank(
    inventory: Inventory,
    stage: int,
    precision: str,
    world_size: int,
    moments: int,
    options: ZeroOptions | None = None,
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
        options: the recipe's ``train.zero_options``; quantized transfers are counted as whole ones.
        overlaps: whether reducing can overlap with the backward pass, as on GPUs: two buckets.
        activations: bytes of one micro-batch.
    """
    options = options or ZeroOptions()
    buckets = _Buckets(options.bucket or REDUCE_BUCKET, 2 if overlaps and options.overlap else 1)
    layouts = {0: _whole, 1: _flattened, 2: _flattened, 3: _partitioned}
    found = layouts[stage](inventory, stage, ITEM_BYTES[precision], world_size, buckets)
    stepped = found["stepped"]
    rank = RankBytes(
        parameters=found["parameters"],
        gradients=found["gradients"],
        masters=4 * stepped if stage else 0,
        moments=4 * stepped * moments,
        teachers=found["teachers"],
        buffers=inventory.buffers,
        temporary=found["temporary"],
        activations=round(activations),
    )
    return _offloaded(rank, found, stage, options)


@dataclass(frozen=True)
class _Buckets:
    """What gradients are reduced in: elements of one, and how many stages 1 and 2 have."""

    numel: int
    count: int


def _offloaded(
    rank: RankBytes, found: dict[str, int], stage: int, options: ZeroOptions
) -> RankBytes:
    """Move to the host what is asked to lie there; and a second copy inside each node."""
    if stage and options.offload_optimizer:
        # The gradients that the CPU steps with are there too, in fp32 as the masters are.
        host = rank.host + 2 * rank.masters + rank.moments
        rank = replace(rank, masters=0, moments=0, gradients=0, host=host)
    if stage != 3:
        return rank
    if options.hpz > 1:
        rank = replace(rank, parameters=rank.parameters + found["all"] // options.hpz)
    if options.offload_parameters:
        pieces = found["pieces"]
        rank = replace(rank, parameters=rank.parameters - pieces, host=rank.host + pieces)
    return rank


def _whole(
    inventory: Inventory, stage: int, size: int, world_size: int, buckets: _Buckets
) -> dict[str, int]:
    # Stage 0 has a bucket of DeepSpeed's engine, of a fixed size.
    bucket = min(inventory.trained, REDUCE_BUCKET) if world_size > 1 else 0
    return {
        "parameters": size * (inventory.trained + sum(inventory.frozen)),
        "gradients": size * inventory.trained,
        "stepped": inventory.trained,
        "teachers": size * sum(inventory.taught),
        "temporary": size * bucket,
    }


def _flattened(
    inventory: Inventory, stage: int, size: int, world_size: int, buckets: _Buckets
) -> dict[str, int]:
    groups, pieces = inventory.groups, flat_pieces(inventory.groups, world_size)
    kept = most_touched(groups, pieces, world_size) if stage == 2 else inventory.trained
    averaged = 0
    if size < 4:
        averaged = most_followed(groups, inventory.followed, pieces, world_size)
        averaged += sum(inventory.averaged) - inventory.num_followed  # of what nothing trains
    return {
        "parameters": size * (sum(pieces) * world_size + sum(inventory.frozen)),
        "gradients": size * kept,
        "stepped": sum(pieces),
        "teachers": size * sum(inventory.taught) + 4 * averaged,
        "temporary": max(buckets.count * size * buckets.numel, 4 * max(pieces, default=0)),
    }


def _partitioned(
    inventory: Inventory, stage: int, size: int, world_size: int, buckets: _Buckets
) -> dict[str, int]:
    trained = [numel for group in inventory.groups for numel in group]
    mine, theirs = [*trained, *inventory.frozen], inventory.taught
    gathered = min(sum(numel for numel in (*mine, *theirs) if numel > PERSISTENT), MAX_LIVE)
    stepped, pieces = own_pieces(trained, world_size), own_pieces(mine, world_size)
    averaged = own_pieces(inventory.averaged, world_size) if size < 4 else 0
    taught = own_pieces(theirs, world_size) + kept_whole(theirs, world_size)
    return {
        "parameters": size * (pieces + kept_whole(mine, world_size)),
        "gradients": size * stepped,
        "stepped": stepped,
        "teachers": size * taught + 4 * averaged,
        "temporary": max(
            size * (buckets.numel + (gathered if world_size > 1 else 0)),
            4 * min(stepped, SUB_GROUP),
        ),
        "pieces": size * pieces,
        "all": size * sum(mine),
    }
