"""What DeepSpeed and Lightning do with state by themselves, where we do it ourselves.

The same claims about our own engine are tested beside it: heads by turns and by rank
(``test_zero``, ``test_guard``), teachers (``test_teacher``), checkpoints at other world sizes
(``test_resume``), resumes (``tests/data/test_resume.py``) and kills (``test_checkpoint_files``).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_scale import dist
from tests.distributed import ENVIRONMENT, run_ranks
from tests.train.test_deepspeed import RATE, TwoHeads, inputs, start
from tests.train.tiny import PRELOAD

pytestmark = pytest.mark.dist


def own_heads(stage: int) -> tuple[float, dict[str, Tensor]]:
    """Each rank trains another head; the first loss here, and whole weights afterwards."""
    model = TwoHeads()
    engine = start(stage, model, gradient_clipping=0.0)
    losses = []
    for step in range(3):
        loss = engine(inputs(2 * step + dist.rank()), "ab"[dist.rank()])
        losses.append(float(loss.detach()))
        engine.backward(loss)
        engine.step()
    return losses[0], {name: value.detach().clone() for name, value in model.named_parameters()}


def own_heads_alone() -> dict[str, Tensor]:
    model = TwoHeads()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    for step in range(3):
        optimizer.zero_grad()
        sum(model(inputs(2 * step + rank), "ab"[rank]) / 2 for rank in range(2)).backward()
        optimizer.step()
    return {name: value.detach() for name, value in model.named_parameters()}


@pytest.mark.parametrize("stage", [1, 2])
def test_deepspeed_mixes_up_the_heads_of_ranks_that_disagree_in_silence(stage: int) -> None:
    (_, found), (_, other) = run_ranks(own_heads, 2, stage, preload=PRELOAD)
    alone = own_heads_alone()
    assert all(torch.equal(found[name], other[name]) for name in alone), "no rank could tell"
    worst = max(float((found[name] - alone[name]).abs().max()) for name in alone)
    assert worst > 0.01, "of steps of 0.01"


class Average(nn.Module):
    """A student, and a teacher that is no parameter of the optimizer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.student, self.teacher = nn.Linear(64, 64), nn.Linear(64, 64)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.student(x) - self.teacher(x).detach() - 1).square().mean()


def average_in_bf16() -> tuple[float, float]:
    """The share of a teacher that 100 averages in bf16 leave alone, and the same in fp32."""
    from deepspeed.utils import safe_get_local_fp32_param

    model = Average()
    engine = start(3, model, gradient_clipping=0.0, bf16={"enabled": True})
    student, teacher = model.student.weight, model.teacher.weight
    before = teacher.ds_tensor.clone()
    exact = safe_get_local_fp32_param(student).clone()
    exact_before = exact.clone()
    for group in engine.optimizer.optimizer.param_groups:
        group["lr"] = 1e-4
    for step in range(100):
        engine.backward(
            engine(torch.randn(4, 64, generator=torch.Generator().manual_seed(step)).bfloat16())
        )
        engine.step()
        with torch.no_grad():
            teacher.ds_tensor.mul_(0.999).add_(student.ds_tensor, alpha=0.001)
            exact.lerp_(safe_get_local_fp32_param(student), 0.001)
    still = float((teacher.ds_tensor == before).float().mean())
    return still, float((exact == exact_before).float().mean())


def test_an_average_in_bf16_never_moves() -> None:
    [(still, exact)] = run_ranks(average_in_bf16, 1, preload=PRELOAD)
    assert still > 0.95 and exact < 0.05


def train_and_save(folder: Path) -> None:
    """A teacher that has moved, a buffer, and two groups with settings of their own."""
    engine = two_groups({})
    for step in range(3):
        engine.backward(engine(torch.ones(4, 64) * step))
        engine.step()
    for parameter in engine.module.teacher.parameters():
        parameter.ds_tensor.data.fill_(7.0)
    engine.module.centre.fill_(32.0)
    engine.save_checkpoint(str(folder), tag="step")


def load_universal(folder: Path) -> dict[str, float]:
    import deepspeed

    engine = two_groups({"checkpoint": {"load_universal": True}})
    engine.load_checkpoint(str(folder), tag="universal")
    teacher = engine.module.teacher.weight
    with deepspeed.zero.GatheredParameters([teacher]):
        largest = float(teacher.abs().max())
    decays = [group["weight_decay"] for group in engine.optimizer.optimizer.param_groups]
    return {
        "teacher": largest,
        "centre": float(engine.module.centre.max()),
        "first decay": decays[0],
        "second decay": decays[1],
    }


def two_groups(settings: dict[str, Any]) -> Any:
    import deepspeed

    model = Average()
    deepspeed.init_distributed("gloo", dist_init_required=False)
    groups = [
        {"params": [model.student.weight], "weight_decay": 0.3},
        {"params": [model.student.bias], "weight_decay": 0.0},
    ]
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(groups, lr=RATE),
        config={
            "train_micro_batch_size_per_gpu": 4,
            "zero_force_ds_cpu_optimizer": False,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
            **settings,
        },
        dist_init_required=False,
    )
    return engine


@pytest.mark.slow
def test_a_universal_checkpoint_lacks_teacher_buffers_and_the_settings_of_groups(
    tmp_path: Path,
) -> None:
    run_ranks(train_and_save, 2, tmp_path, preload=PRELOAD)
    convert = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
    subprocess.run(
        [*convert, f"--input_folder={tmp_path}/step", f"--output_folder={tmp_path}/universal"],
        env={**os.environ, **ENVIRONMENT},
        check=True,
        capture_output=True,
    )
    for world_size in (1, 2):
        for found in run_ranks(load_universal, world_size, tmp_path, preload=PRELOAD):
            assert found["teacher"] < 1, "was 7"
            assert found["centre"] == 0, "was 32"
            assert found["second decay"] == found["first decay"] == pytest.approx(0.3), "was 0"


def save_and_die(folder: Path) -> None:
    """Killed in the middle of its second save, by its own hand."""
    engine = two_groups({})
    engine.save_checkpoint(str(folder), tag="step")
    save = torch.save

    def half_a_save(what: Any, where: Any, *arguments: Any, **options: Any) -> None:
        save(what, where, *arguments, **options)
        path = getattr(where, "name", where)
        os.truncate(path, os.path.getsize(path) // 2)
        os._exit(0)

    torch.save = half_a_save
    engine.save_checkpoint(str(folder), tag="step")


def load(folder: Path) -> str:
    try:
        two_groups({}).load_checkpoint(str(folder), tag="step")
    except Exception as error:  # noqa: BLE001  whatever it may be
        return type(error).__name__
    return "loaded"


def test_a_save_that_dies_takes_deepspeeds_last_checkpoint_with_it(tmp_path: Path) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  the rank left no result
        run_ranks(save_and_die, 1, tmp_path, preload=PRELOAD)
    assert run_ranks(load, 1, tmp_path, preload=PRELOAD) != ["loaded"]


class Numbers(torch.utils.data.IterableDataset[Tensor]):
    """0 to 47, and where it stands, as a stateful loader wants it."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[Tensor]:
        while self.at < 48:
            self.at += 1
            yield torch.tensor([float(self.at - 1)])

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


class Loader:
    """A loader of pairs that carries its data set's state."""

    def __init__(self) -> None:
        self.numbers = Numbers()

    def __iter__(self) -> Iterator[Tensor]:
        numbers = iter(self.numbers)
        for first in numbers:
            yield torch.cat([first, next(numbers)])

    def state_dict(self) -> dict[str, int]:
        return self.numbers.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.numbers.load_state_dict(state)


def resume_by_lightning(folder: Path) -> tuple[list[list[int]], list[list[int]]]:
    """Batches after the fifth: of a run that went on, and of one that was resumed there."""
    import lightning.pytorch as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.seen = nn.Linear(1, 1), []

        def training_step(self, batch: Tensor, index: int) -> Tensor:
            self.seen.append([int(number) for number in batch])
            return self.layer(batch[:, None]).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 5:
                trainer.save_checkpoint(folder / "five.ckpt")

    def trainer(*callbacks: pl.Callback) -> pl.Trainer:
        return pl.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False, callbacks=[*callbacks],
        )  # fmt: skip

    whole, resumed = Module(), Module()
    trainer(Save()).fit(whole, Loader())
    trainer().fit(resumed, Loader(), ckpt_path=folder / "five.ckpt", weights_only=False)
    return whole.seen[5:], resumed.seen


def test_lightning_skips_a_batch_at_every_resume(tmp_path: Path) -> None:
    [(expected, found)] = run_ranks(resume_by_lightning, 1, tmp_path, preload=PRELOAD, group=False)
    assert expected[0] == [10, 11] and found[0] == [12, 13]
