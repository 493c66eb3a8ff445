"""Queues of former batches' rows: in checkpoints, and untouched by validation."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.train.tiny import fit_ranks, make_recipe, newest, outcome_of, saved

pytestmark = pytest.mark.dist
SIZE = 20
QUEUES = ("objectives.moco.queue", "objectives.nnclr.support")

OBJECTIVES = f"""\
objectives:
  moco:
    type: MoCo
    encoder: image
    view: crops
    projector: {{type: MLPProjector, hidden: 8, out: 6, norm: none}}
    queue: {SIZE}
  nnclr:
    type: NNCLR
    encoder: image
    view: crops
    projector: {{type: MLPProjector, hidden: 8, out: 6, norm: batch, last_norm: true}}
    predictor: {{type: MLPPredictor, hidden: 8}}
    support: {SIZE}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two objectives with queues among the others, also in validation."""
    path = make_recipe(tmp_path_factory.mktemp("tiny"))
    text = path.read_text().replace("objectives:\n", OBJECTIVES)
    text = text.replace("feeds: [byol,", "feeds: [moco, nnclr, byol,")
    held_out = "  validation: {held_out: {data: pictures, fields: [image], feeds: [moco, nnclr]}}\n"
    path.write_text(text.replace("views:\n", f"{held_out}views:\n", 1))
    return path


def identical(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return not [name for name in one if not torch.equal(one[name], other[name])]


def check_resumed(stage: int, recipe: Path, folder: Path) -> None:
    settings = (f"train.zero={stage}", "train.keep_last=10")
    fit_ranks(recipe, folder / "straight", 2, *settings, max_steps=6)
    fit_ranks(recipe, folder / "parted", 2, *settings, max_steps=3)
    first = saved(folder / "parted")
    fit_ranks(recipe, folder / "parted", 2, *settings, max_steps=6)
    straight, parted = outcome_of(folder / "straight"), outcome_of(folder / "parted")
    assert straight.losses == parted.losses and len(straight.losses) == 6
    last = saved(folder / "parted")
    assert identical(saved(folder / "straight"), last)
    for queue in QUEUES:
        rows = f"buffer/{queue}.rows"
        assert last[rows].shape == (SIZE, 6)
        assert not torch.equal(first[rows], last[rows])
        torch.testing.assert_close(last[rows].norm(dim=1), torch.ones(SIZE))


def test_queues_go_on_bit_for_bit(recipe: Path, tmp_path: Path) -> None:
    check_resumed(2, recipe, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_queues_go_on_bit_for_bit_at_every_stage(stage: int, recipe: Path, tmp_path: Path) -> None:
    check_resumed(stage, recipe, tmp_path)


def test_validation_pushes_nothing(recipe: Path, tmp_path: Path) -> None:
    settings = ("train.zero=0", "train.steps=8")
    fit_ranks(recipe, tmp_path / "without", 1, *settings, max_steps=4)
    fit_ranks(recipe, tmp_path / "with", 1, *settings, "train.validate_every=1", max_steps=4)
    for folder, passes in (("without", 0), ("with", 4)):
        lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        validated = [line for line in lines if "held_out/loss/moco" in line]
        assert len(validated) == passes
    assert newest(tmp_path / "with").name == "step-000000004"
    assert identical(saved(tmp_path / "without"), saved(tmp_path / "with"))
