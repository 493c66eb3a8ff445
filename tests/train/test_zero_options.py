"""Where shares lie and how they travel changes nothing of what is trained."""

from pathlib import Path

import pytest

from ssl_scale.errors import RecipeError
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.train.combinations import check_combinations
from tests.recipe.writing import faults_of
from tests.train.test_resume import STEPS
from tests.train.tiny import (
    Outcome,
    fit_ranks,
    make_recipe,
    outcome_of,
    saved,
    train_plainly,
    worst_loss,
    worst_weight,
)

pytestmark = pytest.mark.dist
# Absent from the second step on: DeepSpeed's buffers on the host keep the gradient of the first.
SOON_ABSENT = "objectives.mae.until=0.1"
OFFLOADED = "train.zero_options={offload_optimizer: true}"
ALL_OFFLOADED = "train.zero_options={offload_optimizer: true, offload_parameters: true}"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def plain(recipe: Path) -> Outcome:
    return train_plainly(recipe, SOON_ABSENT)


def check(recipe: Path, plain: Outcome, run_folder: Path, world_size: int, *settings: str) -> None:
    fit_ranks(recipe, run_folder, world_size, SOON_ABSENT, *settings)
    found = outcome_of(run_folder)
    assert worst_loss(found, plain) < 1e-6
    assert worst_weight(found.weights, plain.weights)[0] < 1e-6


def test_masters_on_the_host_train_alike(recipe: Path, plain: Outcome, tmp_path: Path) -> None:
    check(recipe, plain, tmp_path, 2, "train.zero=2", OFFLOADED)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("stage", "options"), [(1, OFFLOADED), (2, OFFLOADED), (3, OFFLOADED), (3, ALL_OFFLOADED)]
)
def test_offload_trains_alike_at_every_stage(
    stage: int, options: str, accumulate: int, recipe: Path, plain: Outcome, tmp_path: Path
) -> None:
    settings = (f"train.zero={stage}", f"train.accumulate={accumulate}", options)
    check(recipe, plain, tmp_path, 2, *settings)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 4])
def test_second_copies_within_a_node_see_every_write(
    world_size: int, recipe: Path, plain: Outcome, tmp_path: Path
) -> None:
    settings = ("train.zero=3", "train.zero_options={hpz: 2}")
    check(recipe, plain, tmp_path, world_size, *settings)


@pytest.mark.slow
def test_small_buckets_train_alike(recipe: Path, plain: Outcome, tmp_path: Path) -> None:
    check(recipe, plain, tmp_path, 2, "train.zero=2", "train.zero_options={bucket: 100}")


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_blocks_that_are_computed_again_train_alike(
    stage: int, recipe: Path, plain: Outcome, tmp_path: Path
) -> None:
    again = [f"encoders.{name}.recompute=true" for name in ("image", "text")]
    check(recipe, plain, tmp_path, 2, f"train.zero={stage}", *again)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "options"), [(2, OFFLOADED), (3, ALL_OFFLOADED)])
def test_an_offloaded_run_goes_on_bit_for_bit(
    stage: int, options: str, recipe: Path, tmp_path: Path
) -> None:
    settings = (*STEPS, f"train.zero={stage}", options)
    fit_ranks(recipe, tmp_path / "straight", 2, *settings, max_steps=6)
    for max_steps in (3, 6):
        fit_ranks(recipe, tmp_path / "parted", 2, *settings, max_steps=max_steps)
    straight, parted = saved(tmp_path / "straight"), saved(tmp_path / "parted")
    assert straight.keys() == parted.keys()
    assert all(straight[name].equal(parted[name]) for name in straight)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"zero": "0", "precision": "bf16"}, "train.zero: must be 1, 2 or 3 with train.precision"),
        ({"zero_options": "{offload_parameters: true}"},
         "train.zero_options.offload_parameters: is true, which needs train.zero 3, but that is 2"),
        ({"zero": "0", "zero_options": "{offload_optimizer: true}"},
         "train.zero_options.offload_optimizer: is true, which needs train.zero 1, 2 or 3, but"),
        ({"zero_options": "{hpz: 8}"},
         "train.zero_options.hpz: is 8, which needs train.zero 3, but that is 2"),
        ({"zero": "3", "zero_options": "{hpz: 8, quantize_weights: true}"}, None),
        ({"zero_options": "{offload: true}"}, "train.zero_options.offload: this section takes no"),
    ],
)  # fmt: skip
def test_what_cannot_go_together_is_a_fault(
    settings: dict[str, str], fault: str | None, recipe: Path, tmp_path: Path
) -> None:
    text = recipe.read_text().replace("zero: 2, ", "")
    written = ", ".join(f"{name}: {value}" for name, value in settings.items())
    path = tmp_path / "changed.yaml"
    path.write_text(text.replace("train: {", f"train: {{{written}, "))
    if fault is None:
        read_recipe(path)
    else:
        [found] = faults_of(path)
        assert fault in found


@pytest.mark.parametrize(
    ("settings", "world_size", "fault"),
    [
        (["data.global_batch=9"], 2, "global_batch must be divisible by .* 2 x 1, but is 9"),
        (["train.zero=3", "train.zero_options={hpz: 4}"], 2, "hpz must divide .* 2, .*but is 4"),
        (["train.zero=3", "train.zero_options={hpz: 3}"], 4, "hpz must divide .* 4, .*but is 3"),
        (["train.precision=fp16"], 2, "precision must be fp32 or bf16 on CPUs"),
        (["train.zero=3", "train.zero_options={quantize_weights: true}"], 2, "no quantizer"),
    ],
)
def test_what_cannot_be_done_here_says_what_to_change(
    settings: list[str], world_size: int, fault: str, recipe: Path
) -> None:
    with pytest.raises(RecipeError, match=fault):
        check_combinations(read_recipe(recipe, settings), world_size, world_size)
