"""What a plan says of memory and checkpoints, held against what real ranks hold and write."""

from pathlib import Path

import pytest

from ssl_scale.plan import memory, pieces
from ssl_scale.plan.checkpoint_size import checkpoint_bytes
from ssl_scale.recipe.reading import read_recipe
from tests.train.live_bytes import SIZE, measured, planned, stock_of
from tests.train.tiny import make_recipe, newest

pytestmark = pytest.mark.dist
SGD = "optim={type: SGD, lr: 0.01}"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("tiny"))


def test_deepspeeds_settings_are_those_that_are_planned_with() -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    settings = DeepSpeedZeroConfig()
    assert settings.reduce_bucket_size == memory.REDUCE_BUCKET
    assert settings.param_persistence_threshold == pieces.PERSISTENT
    assert settings.max_live_parameters == memory.MAX_LIVE
    assert settings.sub_group_size == memory.SUB_GROUP


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_kind_of_state_is_as_planned(
    stage: int, precision: str, recipe: Path, tmp_path: Path
) -> None:
    settings = (f"train.zero={stage}", f"train.precision={precision}")
    ranks = measured(recipe, tmp_path / "run", 2, *settings)
    expected = planned(recipe, 2, *settings)
    for kind in ("parameters", "gradients", "masters", "moments", "teachers"):
        fullest = max(rank[kind] for rank in ranks)
        assert fullest == pytest.approx(getattr(expected, kind), rel=0.05), kind
        assert fullest > 1_000_000, kind


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2])
def test_an_optimizer_with_one_moment_is_as_planned(
    stage: int, recipe: Path, tmp_path: Path
) -> None:
    settings = (f"train.zero={stage}", SGD)
    ranks = measured(recipe, tmp_path / "run", 2, *settings)
    expected = planned(recipe, 2, *settings)
    assert ranks[0]["moments"] == pytest.approx(expected.moments, rel=0.05)
    assert ranks[0]["masters"] == pytest.approx(expected.masters, rel=0.05)


@pytest.mark.slow
def test_teachers_are_shared_out_under_stage_3(recipe: Path, tmp_path: Path) -> None:
    settings = ("train.zero=3", "train.precision=bf16")
    found = {
        ranks: measured(recipe, tmp_path / f"{ranks}", ranks, *settings) for ranks in (1, 2, 4)
    }
    held = {ranks: max(each["teachers"] for each in pages) for ranks, pages in found.items()}
    for ranks, num_bytes in held.items():
        assert num_bytes == pytest.approx(planned(recipe, ranks, *settings).teachers, rel=0.01)
    # What stays whole of small tensors is known; the rest falls as one over the ranks.
    whole = 2 * (planned(recipe, 2, *settings).teachers - held[1] / 2)
    assert held[4] - whole / 2 == pytest.approx((held[2] - whole / 2) / 2, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_checkpoint_is_as_large_as_planned(precision: str, recipe: Path, tmp_path: Path) -> None:
    settings = (f"train.precision={precision}",)
    measured(recipe, tmp_path / "run", 2, *settings)
    files = newest(tmp_path / "run" / "run").iterdir()
    written = sum(file.stat().st_size for file in files)
    inventory, moments = stock_of(read_recipe(recipe, [*SIZE, *settings]))
    assert checkpoint_bytes(inventory, precision, moments) == pytest.approx(written, rel=0.01)
