"""Teachers that do not move: from a folder, or the student at one point of its training."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ssl_scale.checkpoint.reader import Reader
from ssl_scale.errors import RecipeError
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.system.build import build_system
from ssl_scale.train.export import export_trained
from ssl_scale.train.trained import Trained, build_untrained
from tests.encoders.test_hf import make
from tests.train.test_resume import copy_slowly
from tests.train.tiny import (
    fit_ranks,
    make_recipe,
    outcome_of,
    saved,
    system_of,
    train_plainly,
    worst_loss,
    worst_weight,
)

OLD = "teachers: {ema: {type: EMATeacher, momentum: 0.9}}\nobjectives:\n"
IMITATE = "  imitate: {type: 'tests.train.imitation:Imitation', encoder: image, teacher: fixed}\n"


def recipe_with(folder: Path, teacher: str) -> Path:
    """The tiny recipe with a second teacher that the student imitates."""
    path = make_recipe(folder)
    text = path.read_text().replace("[byol, mae, classify]", "[byol, mae, classify, imitate]")
    teachers = f"teachers:\n  ema: {{type: EMATeacher, momentum: 0.9}}\n  fixed: {teacher}\n"
    assert OLD in text
    text = text.replace(OLD, f"{teachers}objectives:\n{IMITATE}")
    path.write_text(text.replace("    type: BYOL\n", "    type: BYOL\n    teacher: ema\n"))
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of weights that are not those that training starts with."""
    folder = tmp_path_factory.mktemp("exported")
    recipe = read_recipe(make_recipe(folder), ["train.seed=5"])
    return export_trained(Trained(recipe, build_untrained(recipe), 0), folder / "model")


def taught(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "teachers.fixed.encoders.image."
    return {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }


def test_a_frozen_teacher_has_the_exports_weights(exported: Path, tmp_path: Path) -> None:
    path = recipe_with(tmp_path, f"{{type: FrozenTeacher, from: {exported}, parts: [image]}}")
    expected = load_file(exported / "encoder.image.safetensors")
    system = system_of(path).requires_grad_(False)
    assert worst_weight(taught(system.state_dict()), expected)[0] == 0
    assert worst_weight(dict(system.encoders["image"].named_parameters()), expected)[0] > 1e-3


@pytest.mark.dist
@pytest.mark.slow
def test_a_frozen_teacher_stays_while_sharded_ranks_train(exported: Path, tmp_path: Path) -> None:
    path = recipe_with(tmp_path, f"{{type: FrozenTeacher, from: {exported}, parts: [image]}}")
    expected = load_file(exported / "encoder.image.safetensors")
    plain = train_plainly(path, "train.steps=4")
    fit_ranks(path, tmp_path / "run", 2, "train.steps=4", "train.zero=3")
    found = outcome_of(tmp_path / "run")
    assert worst_loss(found, plain) < 1e-6
    assert worst_weight(taught(found.weights), expected)[0] == 0


def test_a_frozen_teacher_may_be_a_model_of_transformers(tmp_path: Path) -> None:
    source = make("vit")
    source.model.save_pretrained(tmp_path / "vit")
    teacher = f"{{type: FrozenTeacher, from: {tmp_path}/vit, parts: [image], pool: first}}"
    part = system_of(recipe_with(tmp_path, teacher)).teachers["fixed"].part("encoders.image")
    assert part.pool == "first" and part.width == source.width
    assert not any(p.requires_grad for p in part.parameters()) and not part.training
    for one, other in zip(part.parameters(), source.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_a_frozen_teacher_cannot_be_is_told(exported: Path, tmp_path: Path) -> None:
    def build(teacher: str) -> None:
        build_system(read_recipe(recipe_with(tmp_path, teacher)))

    with pytest.raises(RecipeError, match="teachers.fixed: parts must be among .*'audio'"):
        build(f"{{type: FrozenTeacher, from: {exported}, parts: [audio]}}")
    with pytest.raises(RecipeError, match="config.json; a run is exported first"):
        build(f"{{type: FrozenTeacher, from: {tmp_path}, parts: [image]}}")
    path = recipe_with(tmp_path, f"{{type: FrozenTeacher, from: {exported}, parts: [image]}}")
    path.write_text(path.read_text().replace("    teacher: ema\n", "    teacher: fixed\n"))
    with pytest.raises(RecipeError, match="objectives.byol.teacher: must hold .*'projector'"):
        build_system(read_recipe(path))


AT = "{type: StudentTeacher, at: 0.5}"


@pytest.mark.dist
def test_the_students_copy_is_taken_once_and_survives_a_stop(tmp_path: Path) -> None:
    path, every = recipe_with(tmp_path, AT), ("train.save_every=1", "train.keep_last=100")
    fit_ranks(path, tmp_path / "run", 1, *every)
    folders = sorted((tmp_path / "run" / "checkpoints").glob("step-?????????"))
    readers = [Reader(folder) for folder in folders]
    assert len(readers) == 8

    def values(step: int, kind: str, prefix: str) -> dict[str, Tensor]:
        reader = readers[step - 1]
        return {
            name.removeprefix(prefix): reader.read_whole(f"{kind}/{name}")
            for name in reader.names(kind)
            if name.startswith(prefix)
        }

    half = values(4, "master", "encoders.image.")
    encoder = system_of(path).encoders["image"].requires_grad_(False)
    start = dict(encoder.named_parameters())
    for step in range(1, 9):
        copy = values(step, "value", "teachers.fixed.encoders.image.")
        assert worst_weight(copy, half if step > 4 else start)[0] == 0, step
    assert worst_weight(half, start)[0] > 1e-3
    # Stopped before, and after, the copy was taken.
    for stop in (3, 6):
        run = tmp_path / str(stop)
        fit_ranks(path, run, 1, max_steps=stop)
        fit_ranks(path, run, 1)
        whole, resumed = saved(tmp_path / "run"), saved(run)
        assert resumed.keys() == whole.keys()
        assert all(torch.equal(resumed[name], value) for name, value in whole.items())


@pytest.mark.dist
def test_the_copy_waits_until_the_one_before_is_saved(tmp_path: Path) -> None:
    path, settings = recipe_with(tmp_path, AT), ("train.save_every=4", "train.keep_last=9")
    fit_ranks(path, tmp_path / "run", 1, *settings, max_steps=5, change=copy_slowly)
    start = dict(system_of(path).encoders["image"].requires_grad_(False).named_parameters())
    prefix = "value/teachers.fixed.encoders.image."
    for step, is_start in ((4, True), (5, False)):
        held = {
            name.removeprefix(prefix): value
            for name, value in saved(tmp_path / "run", step).items()
            if name.startswith(prefix)
        }
        assert (worst_weight(held, start)[0] == 0) == is_start


def the_fifth_step_is_no_number() -> None:
    from ssl_scale.train.ops import Ops

    forward = Ops._forward

    def altered(self: Ops, micro: int) -> Tensor:
        return forward(self, micro) * (math.nan if self.index == 4 else 1)

    Ops._forward = altered  # type: ignore[method-assign]


@pytest.mark.dist
def test_the_copy_stays_taken_where_its_step_is_left_out(tmp_path: Path) -> None:
    path = recipe_with(tmp_path, AT)
    change = the_fifth_step_is_no_number
    fit_ranks(path, tmp_path / "whole", 1, change=change)
    for stop in (5, 8):
        fit_ranks(path, tmp_path / "parted", 1, max_steps=stop, change=change)
    whole, parted = saved(tmp_path / "whole"), saved(tmp_path / "parted")
    assert whole["buffer/teachers.fixed.taken"]
    assert all(torch.equal(parted[name], value) for name, value in whole.items())
    at_stop = saved(tmp_path / "parted", 5)
    assert at_stop["buffer/teachers.fixed.taken"]


def the_sixth_step_spikes() -> None:
    from ssl_scale.train.ops import Ops

    forward = Ops._forward

    def altered(self: Ops, micro: int) -> Tensor:
        return forward(self, micro) * (1e3 if self.module.progress.drawn == 5 else 1)

    Ops._forward = altered  # type: ignore[method-assign]


@pytest.mark.dist
def test_the_copy_is_taken_again_where_the_run_goes_back_before_it(tmp_path: Path) -> None:
    path = recipe_with(tmp_path, AT)
    settings = ("data.per_step=all", "train.save_every=3", "train.guard={spike: 50, window: 2}")
    fit_ranks(path, tmp_path / "run", 1, *settings, change=the_sixth_step_spikes)
    plain = train_plainly(path, *settings, passed_over=[3, 4, 5])
    weights = outcome_of(tmp_path / "run").weights
    assert weights.pop("teachers.fixed.taken") and plain.weights.pop("teachers.fixed.taken")
    assert worst_weight(weights, plain.weights)[0] < 5e-6


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [2, 3])
def test_the_copy_is_the_students_at_every_stage(
    stage: int, precision: str, tmp_path: Path
) -> None:
    path, settings = recipe_with(tmp_path, AT), (f"train.zero={stage}",)
    fit_ranks(path, tmp_path / "run", 2, *settings, f"train.precision={precision}")
    found = outcome_of(tmp_path / "run")
    if precision == "fp32":
        plain = train_plainly(path, *settings)
        for mine, theirs in zip(found.losses, plain.losses, strict=True):
            # To imitate one's own copy costs a small difference of numbers near 1.
            assert mine == pytest.approx(theirs, rel=1e-6, abs=5e-7)
        assert worst_weight(taught(found.weights), taught(plain.weights))[0] < 1e-6
    else:
        assert max(step.get("loss/imitate", 0) for step in found.losses) > 0
        assert found.weights["teachers.fixed.taken"]
