"""What `ssl-scale systems` says is what the recipes and the results say."""

import json
from pathlib import Path

import pytest

from ssl_scale.cli.main import main
from ssl_scale.errors import RecipeError
from ssl_scale.recipe import finding, systems
from ssl_scale.recipe.systems import list_systems

RECIPE = """\
system: {name: simclr, title: A Simple Framework, paper: arXiv 2002.05709, rows: [48, 64]}
data:
  global_batch: 8
  fields: {image: {type: ImageField, extension: png, size_px: 8, channels: 3}}
  sources: {bare: {data: images, fields: [image], feeds: [contrast]}}
views: {crops: {type: AugmentedImage, field: image, size_px: 8}}
encoders: {image: {type: VisionTransformer, width: 8, depth: 1, num_heads: 1, size_px: 8, patch: 4}}
objectives:
  contrast: {type: NTXent, encoder: image, view: crops, projector: {type: LinearProjector, out: 4}}
optim: {type: AdamW, lr: 0.001}
train: {steps: 2}
"""


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "vision").mkdir()
    (tmp_path / "vision" / "simclr.yaml").write_text(RECIPE)
    (tmp_path / "plain.yaml").write_text(RECIPE.partition("\n")[2])
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "small.yaml").write_text("vision/simclr: {knn: 41.5, commit: abc}\n")
    for module in (finding, systems):
        monkeypatch.setattr(module, "shipped_folder", lambda: tmp_path)
    return tmp_path


def test_a_system_is_listed_with_its_parts_and_figures(
    shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["systems", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["recipe"] == "vision/simclr" and listed["system"]["rows"] == [48, 64]
    assert listed["objectives"] == {"contrast": "NTXent"} and listed["sources"] == ["images"]
    assert listed["measured"] == {"knn": 41.5, "commit": "abc"}
    assert main(["systems"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[1].split()[:4] == ["vision/simclr", "arXiv", "2002.05709", "48,64"]
    assert "knn 41.5" in table[1]


def test_figures_of_a_recipe_that_is_not_there_are_an_error(shipped: Path) -> None:
    (shipped / "results" / "more.yaml").write_text("vision/byol: {knn: 40.0}\n")
    with pytest.raises(RecipeError, match="'vision/byol'"):
        list_systems()
