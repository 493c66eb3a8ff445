"""A run goes on with the mixture of its checkpoint, also where sources came and went."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ssl_scale.data.mixture import EachSample, OneSource
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.train import feed
from ssl_scale.train.mixing import RunMixture, may_continue
from tests.train.tiny import fit_ranks, make_recipe, newest, outcome_of

STEPS = 40


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("tiny"))


def run_mixture(path: Path, *overrides: str, state: Mapping[str, Any] | None = None) -> RunMixture:
    recipe = read_recipe(path, list(overrides))
    return RunMixture(recipe, feed.open_sources(recipe).training, STEPS, state)


def checkpoint(mixing: RunMixture, done: int) -> dict[str, Any]:
    """As it is read back."""
    state: dict[str, Any] = json.loads(json.dumps({"done": done, "mixture": mixing.state(done)}))
    return state


def test_units_and_temperature_come_from_the_recipe(path: Path) -> None:
    mixture = run_mixture(path).mixture
    assert isinstance(mixture, OneSource)
    assert mixture.positions(STEPS) == {"pictures": 240, "texts": 80}
    by_sample = run_mixture(path, "data.mixture.unit=sample").mixture
    assert isinstance(by_sample, EachSample)
    assert {share.source: share.count for share in by_sample.draw(0)} == {"pictures": 6, "texts": 2}
    # Both hold the same 60 samples, so any temperature leaves the weights as they are.
    warm = run_mixture(path, "data.mixture.temperature=3").mixture
    assert warm.positions(STEPS) == mixture.positions(STEPS)


def test_schedules_run_over_the_whole_training(path: Path) -> None:
    falling = "data.sources.texts.weight={type: Linear, start: 1, end: 0}"
    mixture = run_mixture(path, falling, "data.sources.pictures.weight=1").mixture
    half, whole = mixture.positions(STEPS // 2)["texts"], mixture.positions(STEPS)["texts"]
    # The integrals of w / (1 + w) over the halves of training, in batches of 8.
    assert half / 8 == pytest.approx(40 * 0.2123, abs=1)
    assert whole / 8 == pytest.approx(40 * 0.3069, abs=1)


def test_an_unchanged_mixture_goes_on_as_if_it_never_stopped(path: Path) -> None:
    overrides = ("data.sources.texts.weight={type: Linear, start: 1, end: 0}",)
    first = run_mixture(path, *overrides)
    again = run_mixture(path, *overrides, state=checkpoint(first, 13))
    assert again.news == []
    assert [again.mixture.draw(s) for s in range(STEPS)] == [
        first.mixture.draw(s) for s in range(STEPS)
    ]
    # A checkpoint of before mixtures were described goes on too.
    old = run_mixture(path, *overrides, state={"done": 13})
    assert old.mixture.draw(20) == first.mixture.draw(20)


def test_sources_that_come_and_go_leave_the_others_where_they_are(path: Path) -> None:
    more = "data.sources.more={data: pictures, fields: [text], feeds: [mlm]}"
    less = "data.sources.texts=null"
    first = run_mixture(path)
    changed = run_mixture(path, more, less, state=checkpoint(first, 13))
    before = first.mixture.positions(13)
    assert changed.mixture.positions(13) == {"pictures": before["pictures"], "more": 0}
    assert changed.news == [
        "the mixture has changed and begins anew at step 13, every source where it was",
        "source 'more' is new: it begins at its first sample",
        f"source 'texts' is gone, after {before['texts']:,} samples",
    ]
    # From here on it is an unchanged one again.
    later = run_mixture(path, more, less, state=checkpoint(changed, 21))
    assert later.news == []
    assert later.mixture.positions(30) == changed.mixture.positions(30)


def test_what_else_changed_is_told(path: Path) -> None:
    first = run_mixture(path)
    overrides = ("data.sources.texts.weight=2", "data.window=8", "data.global_batch=16")
    changed = run_mixture(path, *overrides, state=checkpoint(first, 4))
    assert changed.mixture.positions(4) == first.mixture.positions(4)
    told = "\n".join(changed.news)
    assert "source 'texts' has another weight or end: it goes on from position 8" in told
    assert "source 'pictures' has other samples or another order than before" in told
    assert "global_batch was 8, and is 16" in told


def test_only_added_or_removed_sources_let_another_recipe_continue(path: Path) -> None:
    recipe = read_recipe(path)
    state = checkpoint(run_mixture(path), 4) | {
        "without_sources": recipe.fingerprint_without_sources()
    }
    more = "data.sources.more={data: pictures, fields: [text], feeds: [mlm]}"
    assert may_continue(read_recipe(path, [more]), state)
    assert read_recipe(path, [more]).fingerprint() != recipe.fingerprint()
    fewer = "data.sources.pictures.feeds=[byol, mae]"
    rest = "data.sources.more={data: pictures, fields: [image, label], feeds: [classify]}"
    assert not may_continue(read_recipe(path, [fewer, rest]), state)
    assert not may_continue(read_recipe(path, ["encoders.text.width=16"]), state)
    assert not may_continue(recipe, {"done": 4})


@pytest.mark.dist
def test_a_source_that_ends_ends_training_on_all_ranks(path: Path, tmp_path: Path) -> None:
    settings = ("data.sources.texts.end=stop", "train.steps=60", "data.mixture.unit=sample")
    fit_ranks(path, tmp_path, 2, *settings, max_steps=20)
    fit_ranks(path, tmp_path, 2, *settings)
    # 60 texts, two a step of eight.
    assert len(outcome_of(tmp_path).losses) == 30
    assert newest(tmp_path).name == "step-000000030"
    assert (tmp_path / "COMPLETED").read_text() == "30\n"
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    drawn = [line for line in lines if line["kind"] == "train"]
    assert sum(line["samples/texts"] for line in drawn) == 60
    assert sum(line["samples/pictures"] for line in drawn) == 180
