"""A sample that was bad is mended after a run has trained on its substitute, and was killed."""

import json
from functools import partial
from pathlib import Path

import pytest

from ssl_scale.data.loader import TrainingStream
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.train import feed
from ssl_scale.train.callbacks.sample_log import read_samples
from ssl_scale.train.mixing import mixture_of
from tests.data.shards import digit_samples
from tests.train.kills import LOGGED, die_after
from tests.train.tiny import fit_ranks, make_recipe

pytestmark = [pytest.mark.slow, pytest.mark.dist]

# What changed after indexing is an error where checksums are compared: so they are not.
TOLD = (
    "data.bad_samples=0.2", "data.checksums=false", "data.num_workers=2", "train.steps=9",
    "train.save_every=5", LOGGED,
)  # fmt: skip
STEP = 6  # of 9, which is less than an epoch; the checkpoint before it is after 5


def steps_of(path: Path, steps: int) -> list[list[str]]:
    """The pictures of the steps, as a run without a past draws them."""
    recipe = read_recipe(path, list(TOLD))
    sources = feed.open_sources(recipe).training
    stream = TrainingStream(
        sources, mixture_of(recipe, sources, 9), end_step=steps, bad_samples=0.2
    )
    return [[k for b in step[0] if b.source == "pictures" for k in b.keys] for step in stream]


def test_a_resumed_run_trains_on_the_same_substitute_though_the_sample_was_mended(
    tmp_path: Path,
) -> None:
    recipe = make_recipe(tmp_path)
    victim = steps_of(recipe, STEP + 1)[STEP][0]
    png = dict(digit_samples(60))[victim]["png"]
    [shard] = [path for path in tmp_path.glob("pictures/*.tar") if png in path.read_bytes()]
    sound = shard.read_bytes()
    assert sound.count(png) == 1
    shard.write_bytes(sound.replace(png, b"\0" * len(png)))

    straight, struck = tmp_path / "straight", tmp_path / "struck"
    assert fit_ranks(recipe, straight, 1, *TOLD) == [0]
    change = partial(die_after, struck, 0, STEP + 2, 0.0)
    with pytest.raises(RuntimeError, match="ended with -9"):
        fit_ranks(recipe, struck, 1, *TOLD, change=change)
    [line] = (struck / "quarantine" / "rank-0.jsonl").read_text().splitlines()
    assert json.loads(line)["key"] == victim
    assert ("pictures", victim) not in read_samples(struck)[STEP]

    shard.write_bytes(sound)
    assert victim in steps_of(recipe, STEP + 1)[STEP]  # a run that begins now sees it
    assert fit_ranks(recipe, struck, 1, *TOLD) == [0]
    found = read_samples(struck)
    assert len(found) == 9 and found == read_samples(straight)
    attempts = {
        json.loads(text)["attempt"]
        for text in (struck / "samples" / "rank-0.jsonl").read_text().splitlines()
        if text and json.loads(text)["step"] == STEP
    }
    assert attempts == {1, 2}  # the step was done again
    assert (struck / "quarantine" / "rank-0.jsonl").read_text().splitlines() == [line]
