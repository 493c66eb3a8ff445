"""A ZeRO-2 step on two processes against torch's DDP and FSDP2, on the same model and batch.

Three copies of one system live in each of two gloo processes and take turns, a round of a few steps
each; a ratio is the median of the rounds' ratios. All run the same forward pass and a fused AdamW
in fp32, and clip nothing. Ours is DeepSpeed's engine as `fit` configures it; FSDP2 shards each
block of the trunk and then the rest (``fully_shard``), DDP reduces in its default buckets.

What bounds it is told by the shares of a ZeRO-2 step: the same forward and backward passes without
any engine, and the reduction of as many numbers alone.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ssl_scale import dist
from ssl_scale.nn.packing import Packing
from ssl_scale.nn.trunk import Trunk
from ssl_scale.recipe.train_plan import TrainPlan
from tests.benchmarks.run import Row
from tests.distributed import run_ranks
from tests.train.tiny import PRELOAD

ROUNDS, STEPS = 12, 2
WIDTH, DEPTH, HEADS = 384, 8, 6
BATCH, TOKENS = 8, 32
LIMIT_S = 900.0


class Model(nn.Module):
    """A trunk that predicts its input; 14 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = Trunk(WIDTH, DEPTH, HEADS)
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        out, _ = self.trunk(tokens, packing=Packing.full(*x.shape[:2], x.device))
        return (self.head(out) - tokens).square().mean()


def rows() -> list[Row]:
    """Measure."""
    [seconds, _] = run_ranks(measure, 2, preload=PRELOAD, limit_s=LIMIT_S)
    ours = [each["ZeRO-2"] for each in seconds]
    found: list[Row] = []
    for name in seconds[0]:
        ratio = statistics.median(each[name] / own for own, each in zip(ours, seconds, strict=True))
        found.append(
            {
                "measure": f"{name}, {WIDTH} wide, {DEPTH} deep, 2 x {BATCH} x {TOKENS} tokens",
                "value": round(1000 * statistics.median(each[name] for each in seconds), 1),
                "unit": "ms",
                "against": None if name == "ZeRO-2" else "a ZeRO-2 step takes 1",
                "ratio": None if name == "ZeRO-2" else round(ratio, 2),
                "goal": None,
                "met": None,
            }
        )
    return found


def measure() -> list[dict[str, float]]:
    """Seconds a step of each, round by round."""
    torch.manual_seed(1 + dist.rank())
    x = torch.randn(BATCH, TOKENS, WIDTH)
    gradients = torch.zeros(sum(p.numel() for p in Model().parameters()))
    steps: dict[str, Callable[[], Any]] = {
        "ZeRO-2": zero_2(x),
        "DDP": ddp(x),
        "FSDP2": fsdp(x),
        "forward and backward alone": alone(x),
        "reducing as many numbers alone": partial(dist.reduce, gradients),
    }
    rounds: list[dict[str, float]] = []
    for number in range(ROUNDS + 2):
        took = {}
        names = list(steps)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            dist.barrier()
            began = time.perf_counter()
            for _ in range(STEPS):
                steps[name]()
            took[name] = (time.perf_counter() - began) / STEPS
        rounds.append({name: took[name] for name in names})
    return rounds[2:]


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def zero_2(x: Tensor) -> Callable[[], None]:
    """DeepSpeed as `fit` configures it."""
    import deepspeed

    from ssl_scale.train.strategy import zero_config

    deepspeed.init_distributed("gloo", dist_init_required=False)
    model = Model()
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=_optimizer(model),
        config=zero_config(TrainPlan(steps=1, zero=2), BATCH, 0.0, dist.world_size()),
        dist_init_required=False,
    )

    def step() -> None:
        engine.backward(engine(x))
        engine.step()

    return step


def ddp(x: Tensor) -> Callable[[], None]:
    """torch's data parallel."""
    return _plain_step(nn.parallel.DistributedDataParallel(Model()), x)


def fsdp(x: Tensor) -> Callable[[], None]:
    """torch's ``fully_shard``."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.world_size(),))
    model = Model()
    for block in model.trunk.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return _plain_step(model, x)


def alone(x: Tensor) -> Callable[[], None]:
    """No engine, no optimizer, no other rank."""
    model = Model()

    def step() -> None:
        model(x).backward()
        model.zero_grad()

    return step


def _plain_step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    optimizer = _optimizer(model)

    def step() -> None:
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()

    return step
