"""Runs whose mixture is learned: where they begin, and how they go on."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ssl_scale.recipe.reading import read_recipe
from ssl_scale.train import feed
from ssl_scale.train.callbacks.sample_log import read_samples
from ssl_scale.train.mixing import RunMixture
from tests.train.kills import die_after
from tests.train.tiny import fit_ranks, make_recipe, outcome_of


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("tiny"))


LEARNED = "data.mixture.learned={type: BanditWeights, every: 4, smoothing: 0.5}"


def run_mixture(path: Path, *overrides: str, state: Mapping[str, Any] | None = None) -> RunMixture:
    recipe = read_recipe(path, ["train.steps=40", *overrides])
    return RunMixture(recipe, feed.open_sources(recipe).training, 40, state)


def test_recipes_give_the_first_weights_and_changed_ones_begin_anew(path: Path) -> None:
    first = run_mixture(path, LEARNED)
    assert first.learning is not None
    assert first.learning.weights_at(7) == {"pictures": 0.75, "texts": 0.25}
    assert first.mixture.positions(8) == {"pictures": 48, "texts": 16}
    state = json.loads(json.dumps({"done": 3, "mixture": first.state(3)}))
    assert state["mixture"]["begin"]["step"] == 0
    again = run_mixture(path, LEARNED, state=state)
    assert again.news == [] and again.mixture.draw(6) == first.mixture.draw(6)
    more = "data.sources.more={data: pictures, fields: [text], feeds: [mlm]}"
    changed = run_mixture(path, LEARNED, more, state=state)
    assert changed.news[-1] == "weights are learned afresh, from those that the recipe gives"
    assert changed.learning is not None and changed.learning.origin == 3
    before = first.mixture.positions(3)
    assert changed.mixture.positions(3) == {**before, "more": 0}
    given = run_mixture(path, state=state)
    assert given.learning is None and given.mixture.positions(3) == before
    assert given.news[-1].startswith("learned was {'type': 'BanditWeights'")
    # A recipe that learns nothing describes its mixture as before.
    assert "learned" not in given.described


def test_a_run_too_short_to_learn_says_so(path: Path) -> None:
    recipe = read_recipe(path, [LEARNED, "train.steps=null", "train.epochs=0.5"])
    sources = feed.open_sources(recipe).training
    assert RunMixture(recipe, sources, 9, None).news == []
    (news,) = RunMixture(recipe, sources, 8, None).news
    assert news == (
        "nothing that is learned comes into force before step 8, but the run has 8: lower "
        "data.mixture.learned.every"
    )


def test_a_run_made_shorter_than_it_is_has_weights_all_the_same(path: Path) -> None:
    first = run_mixture(path, LEARNED)
    assert first.learning is not None
    for done in range(4, 37, 4):
        first.learning.end_step(done, lambda _: 1.0)
    state = json.loads(json.dumps({"done": 36, "mixture": first.state(36)}))
    recipe = read_recipe(path, [LEARNED, "train.steps=20"])
    shorter = RunMixture(recipe, feed.open_sources(recipe).training, 20, state)
    assert shorter.news == []
    assert shorter.mixture.positions(36) == first.mixture.positions(36)


@pytest.mark.slow
@pytest.mark.dist
def test_a_killed_run_goes_on_with_the_weights_and_samples_of_an_unbroken_one(
    path: Path, tmp_path: Path
) -> None:
    told = (
        LEARNED, "train.steps=36", "train.save_every=5", "data.mixture.unit=sample",
        "callbacks={samples: {type: SampleLog}}",
    )  # fmt: skip
    straight, struck = tmp_path / "straight", tmp_path / "struck"
    fit_ranks(path, straight, 2, *told, "data.num_workers=0")
    workers = "data.num_workers=2"
    # A line a source: killed in a round, two or three steps after a checkpoint.
    change = partial(die_after, struck, 1, 35, 0.0)
    with pytest.raises(RuntimeError, match="ended with -9"):
        fit_ranks(path, struck, 2, *told, workers, change=change)
    fit_ranks(path, struck, 2, *told, workers)
    found = read_samples(struck)
    assert len(found) == 36 and found == read_samples(straight)
    assert weights_of(struck) == weights_of(straight)
    assert outcome_of(straight).losses[-1] == outcome_of(struck).losses[-1]
    texts = [weights["weight/texts"] for weights in weights_of(straight).values()]
    assert texts[:8] == [0.25] * 8
    assert len(set(texts)) >= 7 and all(len(set(texts[n : n + 4])) == 1 for n in range(0, 36, 4))
    # The samples are those that the weights ask for.
    drawn = [sum(source == "texts" for source, _ in found[step]) for step in range(36)]
    assert sum(drawn) == pytest.approx(8 * sum(texts), abs=1)


def weights_of(run_folder: Path) -> dict[int, dict[str, float]]:
    """Step -> weights, as metrics tell; what a kill made void is overwritten."""
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return {
        line["step"]: {n: value for n, value in line.items() if n.startswith("weight/")}
        for line in lines
        if line["kind"] == "train"
    }
