"""A run that stopped and went on is the run that never stopped."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_scale import dist
from ssl_scale.errors import CheckpointError
from ssl_scale.train.callbacks.sample_log import read_samples
from tests.train.tiny import (
    fit_ranks,
    make_recipe,
    outcome_of,
    saved,
    worst_loss,
    worst_weight,
)

pytestmark = pytest.mark.dist
STEPS = ("train.steps=8", "train.keep_last=10")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With batch norms, whose statistics are buffers, and observers that remember."""
    path = make_recipe(tmp_path_factory.mktemp("tiny"), norm="batch")
    path.write_text(
        path.read_text()
        + "callbacks:\n  online: {type: OnlineProbe, encoder: image, label: label}\n"
        "  rank: {type: RankMe, encoder: image}\n"
    )
    return path


def assert_identical(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    kinds = {name.partition("/")[0] for name in one}
    assert kinds == {
        "master", "moment.exp_avg", "moment.exp_avg_sq", "value", "buffer", "observer", "counter"
    }  # fmt: skip
    differing = [name for name in one if not torch.equal(one[name], other[name])]
    assert not differing


def check_resumed(stage: int, world_size: int, recipe: Path, folder: Path) -> None:
    settings = (*STEPS, f"train.zero={stage}")
    fit_ranks(recipe, folder / "straight", world_size, *settings, max_steps=6)
    fit_ranks(recipe, folder / "parted", world_size, *settings, max_steps=3)
    fit_ranks(recipe, folder / "parted", world_size, *settings, max_steps=6)
    straight, parted = outcome_of(folder / "straight"), outcome_of(folder / "parted")
    assert straight.losses == parted.losses and len(straight.losses) == 6
    assert_identical(saved(folder / "straight"), saved(folder / "parted"))


def test_it_goes_on_bit_for_bit(recipe: Path, tmp_path: Path) -> None:
    check_resumed(2, 2, recipe, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "world_size"), [(0, 2), (1, 2), (3, 2), (0, 1), (2, 1), (3, 1)])
def test_it_goes_on_bit_for_bit_at_every_stage(
    stage: int, world_size: int, recipe: Path, tmp_path: Path
) -> None:
    check_resumed(stage, world_size, recipe, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_it_goes_on_bit_for_bit_in_bf16(stage: int, recipe: Path, tmp_path: Path) -> None:
    settings = (*STEPS, f"train.zero={stage}", "train.precision=bf16")
    for name, parts in (("straight", (6,)), ("parted", (3, 6))):
        for max_steps in parts:
            fit_ranks(recipe, tmp_path / name, 2, *settings, max_steps=max_steps)
    assert_identical(saved(tmp_path / "straight"), saved(tmp_path / "parted"))


class _Seen(Exception):
    """Ends a run as soon as it wrote down what it restored."""


def save_what_was_restored() -> None:
    from ssl_scale.train.callbacks.checkpointing import Checkpointing

    taken_over = Checkpointing.on_train_start

    def save_again(self: Any, trainer: Any, pl_module: Any) -> None:
        taken_over(self, trainer, pl_module)
        self.writer.checkpoints = self.writer.checkpoints.with_name("again") / "checkpoints"
        self.saved_at = -1
        self.save(pl_module)
        self._finish()
        dist.barrier()  # a rank that ends early takes the others with it
        raise _Seen

    Checkpointing.on_train_start = save_again  # type: ignore[method-assign]


ELSEWHERE = [(2, 2, 1, 3), (1, 3, 2, 2), (2, 0, 2, 3), (2, 1, 1, 0)]


@pytest.mark.slow
@pytest.mark.parametrize(("wrote", "stage", "reads", "other"), ELSEWHERE)
def test_another_world_size_and_stage_take_over_every_number(
    wrote: int, stage: int, reads: int, other: int, recipe: Path, tmp_path: Path
) -> None:
    fit_ranks(recipe, tmp_path, wrote, *STEPS, f"train.zero={stage}", max_steps=3)
    settings = (*STEPS, f"train.zero={other}")
    with pytest.raises(_Seen):
        fit_ranks(recipe, tmp_path, reads, *settings, max_steps=6, change=save_what_was_restored)
    written, again = saved(tmp_path), saved(tmp_path / "again")
    assert_identical(written, again)
    fit_ranks(recipe, tmp_path, reads, *settings, max_steps=6)
    fit_ranks(recipe, tmp_path / "straight", 1, *STEPS, "train.zero=0", max_steps=6)
    here, straight = outcome_of(tmp_path), outcome_of(tmp_path / "straight")
    assert worst_loss(here, straight) < 1e-5  # batch norms divide by small variances
    assert worst_weight(here.weights, straight.weights)[0] < 5e-6


@pytest.mark.slow
def test_a_run_that_moves_from_1_to_2_to_4_ranks_and_back_goes_on_with_the_same_batches(
    recipe: Path, tmp_path: Path
) -> None:
    logged = recipe.with_name("logged.yaml")
    logged.write_text(recipe.read_text() + "  samples: {type: SampleLog}\n")
    for max_steps, (world_size, stage) in ((2, (1, 0)), (4, (2, 3)), (6, (4, 2)), (8, (1, 1))):
        settings = (*STEPS, f"train.zero={stage}")
        fit_ranks(logged, tmp_path / "moved", world_size, *settings, max_steps=max_steps)
    fit_ranks(logged, tmp_path / "straight", 1, *STEPS, "train.zero=0")
    samples = [read_samples(tmp_path / name) for name in ("moved", "straight")]
    assert samples[0] == samples[1] and len(samples[0]) == 8
    moved, straight = outcome_of(tmp_path / "moved"), outcome_of(tmp_path / "straight")
    assert len(moved.losses) == 8 and worst_loss(moved, straight) < 1e-5
    assert worst_weight(moved.weights, straight.weights)[0] < 5e-6


@pytest.mark.slow
def test_another_recipe_is_refused(recipe: Path, tmp_path: Path) -> None:
    fit_ranks(recipe, tmp_path, 2, *STEPS, max_steps=1)
    with pytest.raises(CheckpointError, match="must be a checkpoint of this recipe"):
        fit_ranks(recipe, tmp_path, 2, *STEPS, "encoders.image.width=16", max_steps=2)


def no_room_after(step: int) -> None:
    from ssl_scale.train.checkpoint import writer

    write = writer.write_part

    def fail(folder: Path, rank: int, world_size: int, at: int, part: Any) -> None:
        if at == step and rank == 1:
            raise OSError(28, "No space left on device")
        write(folder, rank, world_size, at, part)

    writer.write_part = fail


def no_room_after_2() -> None:
    no_room_after(2)


def no_room_after_4() -> None:
    no_room_after(4)


@pytest.mark.slow
def test_a_save_that_fails_is_told_and_training_goes_on(recipe: Path, tmp_path: Path) -> None:
    often = (*STEPS, "train.save_every=2")
    fit_ranks(recipe, tmp_path, 2, *often, max_steps=5, change=no_room_after_2)
    found = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert found == ["step-000000004", "step-000000005"]
    with pytest.raises(CheckpointError, match="after step 4, the last, could not be written"):
        fit_ranks(recipe, tmp_path / "last", 2, *often, max_steps=4, change=no_room_after_4)


def copy_slowly() -> None:
    """So slowly that the next steps would be over before the copy begins."""
    from ssl_scale.train.checkpoint.host_copies import HostCopies

    take = HostCopies.take

    def slow(self: HostCopies, pieces: Any) -> Any:
        time.sleep(0.5)
        return take(self, pieces)

    HostCopies.take = slow  # type: ignore[method-assign]


def copy_after_a_step_that_waits_for_nothing() -> None:
    from ssl_scale.train.checkpoint.host_copies import HostCopies
    from ssl_scale.train.checkpoint.writer import Writer
    from ssl_scale.train.ops import Ops

    take, step, stepped = HostCopies.take, Ops.step, threading.Event()

    def late(self: HostCopies, pieces: Any) -> Any:
        assert stepped.wait(60)
        return take(self, pieces)

    def step_and_tell(self: Ops) -> bool:
        is_taken = step(self)
        if self.index == 2:
            stepped.set()
        return is_taken

    HostCopies.take, Ops.step = late, step_and_tell  # type: ignore[method-assign]
    Writer.wait_copied = lambda self: None  # type: ignore[method-assign]


@pytest.mark.parametrize("stage", [0, 3])
def test_what_is_saved_does_not_change_while_it_is_copied(
    stage: int, recipe: Path, tmp_path: Path
) -> None:
    settings = (*STEPS, "train.save_every=2", f"train.zero={stage}")
    found = {}
    for name, change in (
        ("prompt", None),
        ("slow", copy_slowly),
        ("torn", copy_after_a_step_that_waits_for_nothing),
    ):
        fit_ranks(recipe, tmp_path / name, 2, *settings, max_steps=3, change=change)
        found[name] = saved(tmp_path / name, step=2)
    assert_identical(found["prompt"], found["slow"])
    with pytest.raises(AssertionError, match="assert not"):
        assert_identical(found["prompt"], found["torn"])
