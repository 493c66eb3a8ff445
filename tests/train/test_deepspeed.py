"""What DeepSpeed itself does, where the engine works around it. A new version may make these fail:
then the workaround can go.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_scale.sharding import local_values, refresh_persistent
from ssl_scale.train.sharded import ShardedState
from tests.distributed import run_ranks
from tests.train.tiny import PRELOAD

pytestmark = pytest.mark.dist
RATE, TURNS = 1e-2, "baaaaaaa"


class TwoHeads(nn.Module):
    """An encoder and two heads that are used by turns."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(16, 32)
        self.heads = nn.ModuleDict({"a": nn.Linear(32, 16), "b": nn.Linear(32, 16)})

    def forward(self, x: Tensor, turns: str) -> Tensor:
        features = torch.tanh(self.encoder(x))
        return torch.stack([self.heads[head](features).square().mean() for head in turns]).sum()


def inputs(step: int) -> Tensor:
    return torch.randn(4, 16, generator=torch.Generator().manual_seed(step))


def start(
    stage: int,
    model: nn.Module,
    threshold: int = 0,
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> Any:
    import deepspeed

    deepspeed.init_distributed("gloo", dist_init_required=False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=trained,
        optimizer=torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0),
        config={
            "train_micro_batch_size_per_gpu": 4,
            "zero_force_ds_cpu_optimizer": False,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {
                "stage": stage,
                "stage3_param_persistence_threshold": threshold,
                **(options or {}),
            },
            **settings,
        },
        dist_init_required=False,
    )
    return engine


OFFLOAD = {"offload_optimizer": {"device": "cpu"}}


def turns_under(stage: int, forgets: bool, options: dict[str, Any]) -> dict[str, Tensor]:
    model = TwoHeads()
    engine = start(stage, model, options=options, gradient_clipping=0.0)
    sharded = ShardedState(engine, model)
    for step, turn in enumerate(TURNS):
        if forgets:
            sharded.forget_gradients()
        engine.backward(engine(inputs(step), turn))
        engine.step()
    return {name: fragment.master().clone() for name, fragment in sharded.fragments.items()}


def turns_alone() -> dict[str, Tensor]:
    model = TwoHeads()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for step, turn in enumerate(TURNS):
        optimizer.zero_grad(set_to_none=False)
        model(inputs(step), turn).backward()
        optimizer.step()
    return {name: parameter.detach().view(-1) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_an_absent_head_gets_a_zero_gradient(stage: int) -> None:
    [found] = run_ranks(turns_under, 1, stage, True, {}, preload=PRELOAD)
    for name, expected in turns_alone().items():
        torch.testing.assert_close(found[name].view(-1), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("stage", "options"), [(3, {}), (1, OFFLOAD), (2, OFFLOAD), (3, OFFLOAD)])
def test_stage_3_and_offload_step_an_absent_head_with_its_last_gradient(
    stage: int, options: dict[str, Any]
) -> None:
    [found] = run_ranks(turns_under, 1, stage, False, options, preload=PRELOAD)
    alone = turns_alone()
    assert (
        found["heads.b.weight"] - alone["heads.b.weight"].view_as(found["heads.b.weight"])
    ).abs().max() > 0.01


def two_backwards(enters: str, stage: int) -> Tensor:
    """The gradient that two micro-batches leave in the encoder's first partition."""
    model = TwoHeads()
    engine = start(stage, model, gradient_clipping=0.0, managed_gradient_accumulation=False)
    if enters == "once":
        engine(inputs(0), "ab")
        for step in range(2):
            engine.backward(model(inputs(step), "ab"))
    else:
        for step in range(2):
            engine.backward(engine(inputs(step), "ab"))
    engine.step()
    state = next(iter(engine.optimizer.optimizer.state.values()))
    return state["exp_avg"].detach().view(-1)[: 16 * 32] / (1 - 0.9)


def two_gradients_alone() -> Tensor:
    model = TwoHeads()
    for step in range(2):
        model(inputs(step), "ab").backward()
    gradient = model.encoder.weight.grad
    assert gradient is not None
    return gradient.view(-1)


def test_micro_batches_add_up_when_each_enters_the_engine() -> None:
    [found] = run_ranks(two_backwards, 1, "each", 3, preload=PRELOAD)
    torch.testing.assert_close(found, two_gradients_alone(), rtol=1e-4, atol=1e-6)


def test_stage_3_loses_a_micro_batch_that_does_not_enter_the_engine() -> None:
    [found] = run_ranks(two_backwards, 1, "once", 3, preload=PRELOAD)
    assert (found - two_gradients_alone()).abs().max() > 1e-3


def clipped_step(settings: dict[str, float]) -> float:
    model = TwoHeads()
    engine = start(0, model, **settings)
    engine.backward(1000 * engine(inputs(0), "ab"))
    engine.step()
    first = next(iter(engine.optimizer.state.values()))["exp_avg"]
    return float(first.abs().max())


def test_deepspeed_clips_unless_told_not_to() -> None:
    [silent] = run_ranks(clipped_step, 1, {}, preload=PRELOAD)
    [told] = run_ranks(clipped_step, 1, {"gradient_clipping": 0.0}, preload=PRELOAD)
    assert told > 10 * silent


class WithTeacher(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(4, 4), nn.Linear(4, 4)
        self.teacher.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.teacher(x) + self.student(x)


def forward_after_writing(threshold: int, refresh: bool) -> Tensor:
    """What a teacher says after its pieces were set to zero."""
    model = WithTeacher()
    engine = start(3, model, threshold)
    engine.backward(engine(torch.ones(1, 4)).sum())
    engine.step()
    for parameter in model.teacher.parameters():
        local_values(parameter).zero_()
    if refresh:
        refresh_persistent(model.teacher.parameters())
    with torch.no_grad():
        return engine.module.teacher(torch.ones(1, 4)).clone()


def test_a_write_to_a_small_parameters_piece_is_not_seen() -> None:
    for said in run_ranks(forward_after_writing, 2, 100_000, False, preload=PRELOAD):
        assert said.abs().max() > 0.01


@pytest.mark.parametrize("threshold", [0, 100_000])
def test_a_refreshed_write_is_seen(threshold: int) -> None:
    for said in run_ranks(forward_after_writing, 2, threshold, True, preload=PRELOAD):
        assert torch.equal(said, torch.zeros(1, 4))
