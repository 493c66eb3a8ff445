"""A run starts from what another learned, whoever wrote it, and does so once."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssl_scale.checkpoint.reader import read_weights
from ssl_scale.errors import SslScaleError
from tests.train.tiny import fit_ranks, make_recipe, newest, partition_everything

pytestmark = [pytest.mark.slow, pytest.mark.dist]

PARTS = ("encoders.image", "objectives.byol.projector")
# Steps so small that what a part started from is what it has after one.
STILL = ("optim.lr.peak=1e-12", "optim.weight_decay=0", "train.steps=4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``first`` is a run of two ranks under ZeRO-3, everything in pieces."""
    folder = tmp_path_factory.mktemp("warm")
    fit_ranks(
        make_recipe(folder),
        folder / "first",
        2,
        "train.zero=3",
        "train.steps=3",
        change=partition_everything,
    )
    return folder


def plan(folder: Path, **more: str) -> str:
    rest = "".join(f", {name}: {value}" for name, value in more.items())
    return f"init_from=[{{run: {folder}/first, parts: [{', '.join(PARTS)}]{rest}}}]"


def of(weights: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    found = {n.removeprefix(part): v for n, v in weights.items() if n.startswith(f"{part}.")}
    assert found
    return found


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("stage", [0, 3])
def test_a_run_takes_an_encoder_and_a_head_of_another(
    stage: int, world_size: int, folder: Path
) -> None:
    run = folder / f"second-{stage}-{world_size}"
    told = (f"train.zero={stage}", "train.seed=7", "encoders.text.width=12", *STILL, plan(folder))
    change = partition_everything if stage == 3 else None
    fit_ranks(folder / "tiny.yaml", run, world_size, *told, max_steps=1, change=change)
    first, second = read_weights(newest(folder / "first")), read_weights(newest(run))
    for part in PARTS:
        for name, value in of(first, part).items():
            for owner in ("", "teachers.ema."):
                mine = of(second, f"{owner}{part}")[name]
                torch.testing.assert_close(mine, value, rtol=0, atol=1e-8)
    for part in ("objectives.mae", "objectives.byol.predictor"):
        one, other = of(first, part), of(second, part)
        assert any(not torch.allclose(one[name], other[name], atol=1e-3) for name in one)
    report = json.loads((run / "warm_start.json").read_text())
    assert set(report) == set(PARTS)
    assert report["encoders.image"]["step"] == 3 and report["encoders.image"]["missing"] == []
    assert len(report["encoders.image"]["matched"]) == 18


def test_a_resume_does_not_start_again(folder: Path) -> None:
    run = folder / "resumed"
    told = ("train.zero=3", "train.seed=7", "train.steps=6", plan(folder, teacher="ema"))
    fit_ranks(folder / "tiny.yaml", run, 2, *told, max_steps=3)
    report = (run / "warm_start.json").read_text()
    assert json.loads(report)["encoders.image"]["teacher"] == "ema"
    before = read_weights(newest(run))
    (folder / "first").rename(folder / "away")
    try:
        still = (*told, "optim.lr.peak=1e-12", "optim.weight_decay=0")
        fit_ranks(folder / "tiny.yaml", run, 2, *still, max_steps=4)
        with pytest.raises(SslScaleError, match=f"{folder}/first must have a checkpoint"):
            fit_ranks(folder / "tiny.yaml", folder / "third", 2, *told)
    finally:
        (folder / "away").rename(folder / "first")
    after = read_weights(newest(run))
    assert newest(run).name == "step-000000004"
    for name, value in of(before, "encoders.image").items():
        torch.testing.assert_close(of(after, "encoders.image")[name], value, rtol=0, atol=1e-8)
    assert (run / "warm_start.json").read_text() == report
