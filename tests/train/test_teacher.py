"""The EMA teacher follows the student exactly, at every stage and in bf16, and is seen to."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssl_scale.checkpoint.reader import Reader
from tests.train.tiny import (
    fit_ranks,
    make_recipe,
    outcome_of,
    partition_everything,
    system_of,
    train_plainly,
    worst_loss,
)

pytestmark = pytest.mark.dist
NUM_STEPS = 20
EVERY_STEP = (f"train.steps={NUM_STEPS}", "train.save_every=1", "train.keep_last=100")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("tiny"), norm="batch")


def trajectory(run_folder: Path, kind: str) -> list[dict[str, Tensor]]:
    """Every step's tensors of a kind."""
    folders = sorted((run_folder / "checkpoints").glob("step-?????????"))
    assert len(folders) == NUM_STEPS
    return [
        {name: reader.read_whole(f"{kind}/{name}") for name in reader.names(kind)}
        for reader in map(Reader, folders)
    ]


def average(
    students: list[dict[str, Tensor]], first: dict[str, Tensor], momentum: float
) -> list[dict[str, Tensor]]:
    """The moving average in float64, after every step."""
    held = {name: value.double() for name, value in first.items()}
    found = []
    for student in students:
        held = {
            name: momentum * value + (1 - momentum) * student[name].double()
            for name, value in held.items()
        }
        found.append(held)
    return found


def worst(found: list[dict[str, Tensor]], expected: list[dict[str, Tensor]]) -> float:
    """Largest difference at any step; `found` is named as a teacher's."""
    return max(
        float((value - step[name.removeprefix("teachers.ema.")]).abs().max())
        for mine, step in zip(found, expected, strict=True)
        for name, value in mine.items()
    )


def start_of(recipe: Path, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The teacher's first values, named like the student's."""
    system = system_of(recipe)
    taught = dict(system.teachers["ema"].named_parameters())
    return {name: value.detach().to(dtype).float() for name, value in taught.items()}


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_it_equals_a_whole_average_in_float64(stage: int, recipe: Path, tmp_path: Path) -> None:
    fit_ranks(recipe, tmp_path, 2, f"train.zero={stage}", *EVERY_STEP)
    students, found = trajectory(tmp_path, "master"), trajectory(tmp_path, "value")
    expected = average(students, start_of(recipe), 0.9)
    assert len(found[0]) == len(start_of(recipe)) > 20
    assert worst(found, expected) < 1e-6
    assert worst(found[:1], expected[-1:]) > 1e-3, "the teacher must have moved"


@pytest.mark.slow
@pytest.mark.parametrize("change", [None, partition_everything])
def test_in_bf16_the_average_moves_although_the_rounded_values_hardly_do(
    change: None, recipe: Path, tmp_path: Path
) -> None:
    settings = ("train.zero=3", "train.precision=bf16", "teachers.ema.momentum=0.9996")
    fit_ranks(recipe, tmp_path, 2, *settings, *EVERY_STEP, change=change)
    students, found = trajectory(tmp_path, "master"), trajectory(tmp_path, "value")
    # Under ZeRO-3 weights are drawn in bf16, other numbers than in fp32: go on from the first.
    first = {name.removeprefix("teachers.ema."): value for name, value in found[0].items()}
    assert worst(found[1:], average(students[1:], first, 0.9996)) < 1e-6
    moved = [
        [value[name] for value in found]
        for name in found[0]
        if (found[-1][name] - found[0][name]).abs().max() > 0
    ]
    assert len(moved) > 15, "most parameters' averages move"
    rounded = sum(int((v[-1].bfloat16() != v[0].bfloat16()).sum()) for v in moved)
    exact = sum(int((v[-1] != v[0]).sum()) for v in moved)
    assert rounded < exact / 2, "in bf16 most of this would be lost"


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_in_bf16_at_lower_stages_it_averages_the_masters_too(
    world_size: int, stage: int, recipe: Path, tmp_path: Path
) -> None:
    settings = (f"train.zero={stage}", "train.precision=bf16", "data.global_batch=12")
    fit_ranks(recipe, tmp_path, world_size, *settings, *EVERY_STEP)
    expected = average(trajectory(tmp_path, "master"), start_of(recipe, torch.bfloat16), 0.9)
    assert worst(trajectory(tmp_path, "value"), expected) < 1e-6


LONG = 200


def compare_with_float64() -> None:
    """Each rank averages its pieces of the masters in float64 as well, and compares at the end."""
    from ssl_scale.train.ops import Ops

    update, exact, first = Ops.update_teachers, {}, {}

    def watch(self: Ops) -> dict[str, float]:
        figures = update(self)
        teacher, shards = self.system.teachers["ema"], self.module.sharded
        found = teacher.fp32_shards()
        for name, _, theirs in teacher.pairs(self.system):
            if self.index == 0:
                exact[name] = found[name].double()
                first[name] = found[name].clone()
            else:
                exact[name].lerp_(
                    shards.master(theirs).double(), 1 - figures["teacher/ema/momentum"]
                )
        if self.index == LONG - 1:
            held = [name for name, piece in found.items() if piece.numel()]
            worst = max(float((found[name] - exact[name]).abs().max()) for name in held)
            assert worst < 1e-6, worst
            moved = max(float((found[name] - first[name]).abs().max()) for name in held)
            assert moved > 1e-5, "the teacher must have moved"
        return figures

    Ops.update_teachers = watch  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_after_200_steps_in_bf16_it_equals_a_whole_average_in_float64(
    stage: int, recipe: Path, tmp_path: Path
) -> None:
    settings = (
        "train.precision=bf16", "teachers.ema.momentum=0.9996", f"train.zero={stage}",
        f"train.steps={LONG}",
    )  # fmt: skip
    fit_ranks(recipe, tmp_path, 2, *settings, change=compare_with_float64)
    assert len(outcome_of(tmp_path).losses) == LONG


def saw_rounded_averages() -> None:
    """Let a rank see what its teacher's forward passes use, and the averages behind it."""
    from ssl_scale import dist
    from ssl_scale.train.ops import Ops

    update = Ops.update_teachers

    def look(self: Ops) -> dict[str, float]:
        figures = update(self)
        teacher = self.system.teachers["ema"]
        for name, average in teacher.fp32_shards().items():
            place = teacher._places[name]
            rounded = dict(teacher.named_parameters())[name].view(-1)
            own = rounded[place.start : place.start + place.numel]
            assert torch.equal(own.float(), average.bfloat16().float()), name
            ranks = dist.gather_objects(rounded.detach().clone())
            assert all(torch.equal(ranks[0], other) for other in ranks), name
        return figures

    Ops.update_teachers = look  # type: ignore[method-assign]


@pytest.mark.parametrize("stage", [1, 2])
def test_in_bf16_every_rank_uses_the_same_rounded_averages(
    stage: int, recipe: Path, tmp_path: Path
) -> None:
    settings = (f"train.zero={stage}", "train.precision=bf16", "train.steps=3")
    fit_ranks(recipe, tmp_path, 2, *settings, change=saw_rounded_averages)


@pytest.mark.parametrize("stage", [3])
def test_decay_and_gradients_never_touch_it(stage: int, recipe: Path, tmp_path: Path) -> None:
    still = ("teachers.ema.momentum=1.0", f"train.zero={stage}", "optim.weight_decay=0.5")
    fit_ranks(recipe, tmp_path, 2, *still)
    weights, first = outcome_of(tmp_path).weights, start_of(recipe)
    assert first.keys() <= weights.keys()
    for name, value in first.items():
        assert torch.equal(weights[f"teachers.ema.{name}"], value), name
        if name.endswith("weight"):
            assert not torch.equal(weights[name], value), name


def no_refresh() -> None:
    from ssl_scale.teachers import ema

    ema.refresh_persistent = lambda parameters: None


@pytest.mark.slow
def test_its_forward_sees_every_update(recipe: Path, tmp_path: Path) -> None:
    settings = ("train.zero=3", "train.steps=6", "teachers.ema.momentum=0.2")
    plain = train_plainly(recipe, *settings)
    fit_ranks(recipe, tmp_path / "seen", 2, *settings)
    fit_ranks(recipe, tmp_path / "stale", 2, *settings, change=no_refresh)
    assert worst_loss(outcome_of(tmp_path / "seen"), plain) < 1e-6
    assert worst_loss(outcome_of(tmp_path / "stale"), plain) > 1e-3
