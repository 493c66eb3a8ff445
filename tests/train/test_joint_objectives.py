"""Every loss over crops or pairs, in one recipe: read, refused where it must be, and trained."""

from pathlib import Path

import pytest

from tests.recipe.writing import faults_of
from tests.train.tiny import (
    fit_ranks,
    make_recipe,
    outcome_of,
    train_plainly,
    worst_weight,
)

PROJECTOR = "projector: {type: MLPProjector, hidden: 8, out: 6, norm: layer}"
PREDICTOR = "predictor: {type: MLPPredictor, hidden: 8, norm: layer}"
CROPS = f"encoder: image, view: crops, {PROJECTOR}"

OBJECTIVES = {
    "simsiam": f"{{type: SimSiam, {CROPS}, {PREDICTOR}}}",
    "vicreg": f"{{type: VICReg, {CROPS}}}",
    "barlow": f"{{type: BarlowTwins, {CROPS}}}",
    "supcon": f"{{type: SupCon, label: label, {CROPS}}}",
    "siglip": "{type: SigmoidContrast, between: [image, text], "
    "projector: {type: LinearProjector, out: 6}}",
    "moco": f"{{type: MoCo, {CROPS}, queue: 12}}",
    "moco3": f"{{type: MoCoV3, {CROPS}, {PREDICTOR}}}",
    "nnclr": f"{{type: NNCLR, {CROPS}, {PREDICTOR}, support: 12}}",
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = make_recipe(tmp_path)
    lines = "".join(f"  {name}: {text}\n" for name, text in OBJECTIVES.items())
    text = path.read_text().replace("objectives:\n", f"objectives:\n{lines}")
    pictures = "fields: [image, label], feeds: [byol,"
    more = ", ".join(name for name in OBJECTIVES)
    assert pictures in text
    text = text.replace(pictures, f"fields: [image, label, text], feeds: [{more}, byol,")
    path.write_text(text)
    return path


def test_those_that_look_at_the_whole_batch_refuse_micro_batches(recipe: Path) -> None:
    assert faults_of(recipe) == []
    faults = faults_of(recipe, "train.accumulate=2")
    refusing = {name for name in OBJECTIVES if any(f"objectives.{name} " in f for f in faults)}
    assert refusing == {*OBJECTIVES} - {"simsiam", "moco"}
    assert len(faults) == len(refusing)
    assert all("train.accumulate: must be 1, but is 2: objectives." in fault for fault in faults)


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_train_them_like_plain_pytorch(stage: int, recipe: Path, tmp_path: Path) -> None:
    fit_ranks(recipe, tmp_path / "run", 2, f"train.zero={stage}", "train.steps=6")
    found, expected = outcome_of(tmp_path / "run"), train_plainly(recipe, "train.steps=6")
    assert {name for step in found.losses for name in step} > {f"loss/{o}" for o in OBJECTIVES}
    # Supervised contrast of a single labelled sample is zero.
    assert found.losses == [pytest.approx(step, rel=5e-6, abs=1e-7) for step in expected.losses]
    assert worst_weight(found.weights, expected.weights)[0] < 5e-6
