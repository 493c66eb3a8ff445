"""Heads and objectives under DeepSpeed's ZeRO-3, whose hooks find only what modules are built for.

Plain gradient descent, so that no optimizer turns rounding noise into steps.
"""

import pytest
import torch
from torch import Tensor, nn

from ssl_scale import dist
from tests.distributed import run_ranks
from tests.objectives.cases import CASES, build
from tests.objectives.steps import Samples, World, make_samples

pytestmark = [pytest.mark.dist, pytest.mark.slow]
NUM, NUM_STEPS, RATE = 13, 4, 0.05
# The second rank has images of none of its samples.
SPLIT = [[0, 1, 3, 4, 5, 7, 8, 9, 11, 12], [2, 6, 10]]

CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_force_ds_cpu_optimizer": False,
    "zero_allow_untested_optimizer": True,
    # DeepSpeed's default is to clip at 1.
    "gradient_clipping": 0.0,
    # Nothing stays whole: every parameter has to be gathered by its module.
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
}


class Training(nn.Module):
    """The share of this rank in the loss of the global batch."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def forward(self, samples: Samples) -> Tensor:
        step = self.world.step(samples)
        count = dist.reduce(self.world.objective.count(step)).clamp(min=1)
        return self.world.objective(step).total * dist.world_size() / count


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def losses_under_zero3() -> dict[str, list[float]]:
    import deepspeed

    deepspeed.init_distributed("gloo", dist_init_required=False)
    samples = make_samples(NUM, torch.float32).pick(SPLIT[dist.rank()])
    losses = {}
    for name in CASES:
        with deepspeed.zero.Init(config_dict_or_path=CONFIG):
            model = Training(build(name, torch.float32))
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=torch.optim.SGD(trained(model), lr=RATE),
            config=CONFIG,
            dist_init_required=False,
        )
        losses[name] = []
        for _ in range(NUM_STEPS):
            loss = engine(samples)
            engine.backward(loss)
            engine.step()
            losses[name].append(float(dist.reduce(loss.detach())) / dist.world_size())
        engine.destroy()
    return losses


def losses_alone(name: str) -> list[float]:
    model = Training(build(name, torch.float32))
    optimizer = torch.optim.SGD(trained(model), lr=RATE)
    samples = make_samples(NUM, torch.float32).pick([row for rows in SPLIT for row in rows])
    losses = []
    for _ in range(NUM_STEPS):
        optimizer.zero_grad()
        loss = model(samples)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.fixture(scope="module")
def sharded() -> list[dict[str, list[float]]]:
    return run_ranks(losses_under_zero3, 2, preload=("deepspeed",), limit_s=280)


@pytest.mark.parametrize("name", CASES)
def test_sharded_ranks_train_like_one_process(name, sharded):
    alone = losses_alone(name)
    if "pseudo" in name:  # more guesses become sure, and count
        assert alone[-1] != pytest.approx(alone[0], rel=1e-3)
    else:
        assert alone[-1] < alone[0]
    for losses in sharded:
        assert losses[name] == pytest.approx(alone, rel=1e-6)
