"""From a recipe's callbacks to observers, and their state in one flat mapping."""

from pathlib import Path

import pytest
import torch

from ssl_scale.errors import RecipeError
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.train.callbacks.feature_rank import RankMe
from ssl_scale.train.callbacks.observing import Observing, build_observers
from ssl_scale.train.callbacks.online_probe import OnlineProbe
from ssl_scale.train.callbacks.reporting import Reporting
from ssl_scale.train.records import Records
from ssl_scale.train.waiting import Waiting

RECIPE = """
data:
  global_batch: 8
  fields:
    image: {type: ImageField, extension: png, size_px: 8, channels: 1}
    label: {type: LabelField, extension: cls, num_classes: 7}
  sources: {all: {data: pictures, fields: [image, label], feeds: [classify]}}
views: {image: {type: ImageView, field: image}}
encoders: {image: {type: VisionTransformer, width: 8, depth: 1, num_heads: 1, patch: 2, size_px: 8}}
objectives: {classify: {type: CrossEntropy, encoder: image, label: label}}
optim: {type: AdamW, lr: 1.0e-3}
train: {steps: 2}
callbacks:
  watch: {type: OnlineProbe, encoder: image, label: LABEL}
  rank: {type: RankMe, encoder: image, every: 3}
"""


def recipe(folder: Path, label: str = "label") -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.replace("LABEL", label))
    return read_recipe(path, require_data=False)


def test_observers_are_built_with_the_classes_of_their_label(tmp_path: Path) -> None:
    observers = build_observers(recipe(tmp_path), tmp_path, 1)
    probe, rank = observers["watch"], observers["rank"]
    assert isinstance(probe, OnlineProbe) and probe.num_classes == 7
    assert isinstance(rank, RankMe) and rank.every == 3


def test_a_probe_of_a_field_that_is_no_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"callbacks.watch: must name .* \['label'\], but names 'image'"
    ):
        build_observers(recipe(tmp_path, label="image"), tmp_path, 1)


def test_every_observer_finds_its_own_state_again(tmp_path: Path) -> None:
    reporting = Reporting(Records(tmp_path, attempt=1), every=1, label="test", waiting=Waiting())
    saved, fresh = (
        Observing(build_observers(recipe(tmp_path), tmp_path, 1), 1, reporting) for _ in range(2)
    )
    probe, rank = saved.observers["watch"], saved.observers["rank"]
    assert isinstance(probe, OnlineProbe) and isinstance(rank, RankMe)
    probe.load_state_dict({"weight": torch.ones(2)})
    rank.passes = 5
    fresh.load_state_dict(saved.state_dict())
    assert fresh.state_dict().keys() == {"watch.weight", "rank.passes"}
    restored = fresh.observers["rank"]
    assert isinstance(restored, RankMe) and restored.passes == 5
    fresh.load_state_dict({})
    assert fresh.state_dict() == {"rank.passes": torch.zeros(1)}
