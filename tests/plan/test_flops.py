"""Counted operations against formulas written by hand, and against the same step with values."""

from pathlib import Path

import pytest
import torch

from ssl_scale.plan.building import build_on_meta, build_with_values, make_batch
from ssl_scale.plan.cost import Counter, cost_of_steps, micro_batch
from ssl_scale.plan.flops import count_micro_batch
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.recipe.recipe import Recipe
from tests.recipe.writing import write

HOST, META = torch.device("cpu"), torch.device("meta")
VOCABULARY = 30522

PICTURES = """\
data:
  global_batch: 16
  fields:
    image: {type: ImageField, extension: png, size_px: 32}
    label: {type: LabelField, extension: cls, num_classes: 10}
    text: {type: TextField, extension: txt, tokenizer: words, max_tokens: 16}
  sources:
    pictures: {data: digits, fields: [image, label], feeds: [classify], weight: 3}
    texts: {data: words, fields: [text], feeds: [mlm], weight: 1}
views:
  image: {type: ImageView, field: image}
  text: {type: TextView, field: text}
encoders:
  image: {type: VisionTransformer, width: 32, depth: 2, num_heads: 2, patch: 8, size_px: 32}
  text: {type: TextTransformer, width: 32, depth: 1, num_heads: 2, max_tokens: 16}
masks:
  words: {type: TokenMask, view: text, encoder: text, ratio: 0.3}
objectives:
  classify: {type: CrossEntropy, encoder: image, label: label, view: image}
  mlm: {type: MaskedTokens, encoder: text, mask: words}
optim: {type: AdamW, lr: 0.1}
train: {steps: 10}
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write(tmp_path, PICTURES)


def recipe_of(name: str | Path, *overrides: str) -> Recipe:
    return read_recipe(name, overrides, {}, require_data=False)


def flops_of(recipe: Recipe) -> float:
    counter = Counter(recipe, build_on_meta(recipe, VOCABULARY), VOCABULARY)
    step = cost_of_steps(recipe, counter, 1, {})
    assert not step.tried
    return step.flops / recipe.data.global_batch


def blocks(tokens: int, width: int, depth: int) -> float:
    """Operations of a transformer's blocks, forward (arXiv 2001.08361, section 2.1)."""
    return depth * tokens * (24 * width**2 + 4 * tokens * width)


def test_a_masked_autoencoder_costs_its_visible_tokens_and_its_decoder() -> None:
    patches, visible, pixels, width, decoder = 196, 49, 16 * 16 * 3, 1024, 512
    forward = (
        2 * patches * pixels * width
        + blocks(visible + 1, width, 24)
        + 2 * visible * width * decoder
        + blocks(patches + 1, decoder, 8)
        + 2 * patches * decoder * pixels
    )
    assert flops_of(recipe_of("vision/mae")) == pytest.approx(3 * forward, rel=0.05)


def test_bert_costs_its_blocks_and_the_vocabulary_at_masked_words() -> None:
    tokens, width = 512, 768
    masked = 0.15 * tokens
    forward = blocks(tokens, width, 12) + masked * 2 * (width**2 + width * VOCABULARY)
    assert flops_of(recipe_of("text/bert")) == pytest.approx(3 * forward, rel=0.05)


def test_a_teacher_costs_its_forward_pass_only() -> None:
    recipe = recipe_of("vision/moco_v2")
    system = build_on_meta(recipe)
    counted = count_micro_batch(system, make_batch(recipe, "images", 4, META))
    # Both look at one crop: half of the forward operations have a backward pass of twice as many.
    assert counted.backward == pytest.approx(counted.forward, rel=0.05)


@pytest.mark.parametrize("source", ["pictures", "texts"])
def test_shapes_cost_what_values_cost(source: str, pictures: Path) -> None:
    recipe = recipe_of(pictures)
    found = [
        count_micro_batch(build(recipe, 100), make_batch(recipe, source, 8, device))
        for build, device in ((build_on_meta, META), (build_with_values, HOST))
    ]
    assert found[0].flops == found[1].flops > 0


def test_an_objective_that_looks_at_values_is_run_on_some(pictures: Path) -> None:
    looks = '{type: "tests.plan.parts:Looks", encoder: image, label: label, view: image}'
    plain = recipe_of(pictures)
    looking = recipe_of(pictures, f"objectives.classify={looks}")
    steps = []
    for recipe in (plain, looking):
        counter = Counter(recipe, build_on_meta(recipe, 100), 100)
        steps.append(cost_of_steps(recipe, counter, 1, {}))
    assert list(steps[1].tried) == ["pictures"]
    assert not steps[0].tried
    assert steps[1].flops == pytest.approx(steps[0].flops, rel=0.01)


def test_sources_count_by_their_shares(pictures: Path) -> None:
    recipe = recipe_of(pictures)
    step = cost_of_steps(recipe, Counter(recipe, build_on_meta(recipe, 100), 100), 1, {})
    mean = 0.75 * step.by_source["pictures"] + 0.25 * step.by_source["texts"]
    assert step.flops == pytest.approx(16 * mean)


def test_an_objective_costs_while_it_is_active(pictures: Path) -> None:
    whole = flops_of(recipe_of(pictures))
    half = flops_of(recipe_of(pictures, "objectives.mlm.until=0.5"))
    without = flops_of(recipe_of(pictures, "objectives.mlm.until=0.000001"))
    assert half == pytest.approx((whole + without) / 2, rel=1e-4)
    assert without < whole


def test_losses_that_compare_all_samples_are_counted_among_all_ranks() -> None:
    recipe = recipe_of("small/clip")
    system = build_on_meta(recipe, 100)
    batch = make_batch(recipe, "pairs", 4, META)
    alone, among = (count_micro_batch(system, batch, ranks).forward for ranks in (1, 100))
    # Two products of 4 rows with 4 x 99 rows more, of the projector's width.
    assert among - alone == 2 * 2 * 4 * 4 * 99 * 64


def test_activations_are_what_autograd_keeps_besides_parameters(pictures: Path) -> None:
    recipe = recipe_of(pictures)
    system = build_on_meta(recipe, 100)
    few, many = (
        count_micro_batch(system, make_batch(recipe, "pictures", num, META)).activations
        for num in (8, 16)
    )
    tokens = 17 * 8
    # At least the inputs of two norms, four projections and two feed-forward layers of each block.
    assert few > 2 * tokens * 4 * 32 * 12
    assert many == pytest.approx(2 * few, rel=0.05)


def test_recomputing_blocks_keeps_less_and_costs_another_forward_pass(pictures: Path) -> None:
    found = []
    for recompute in ("false", "true"):
        recipe = recipe_of(pictures, f"encoders.image.recompute={recompute}")
        system = build_on_meta(recipe, 100)
        found.append(count_micro_batch(system, make_batch(recipe, "pictures", 8, META)))
    assert found[1].activations < 0.5 * found[0].activations
    # Not the last product of a block, whose result the backward pass does not need.
    assert found[0].backward + 0.5 * found[0].forward < found[1].backward


def test_micro_batches_by_tokens_hold_no_more_samples_than_fit(pictures: Path) -> None:
    packed = ("data.max_tokens=32", "data.sources.texts.lengths=text")
    assert micro_batch(recipe_of(pictures), "texts", 2) == 8
    assert micro_batch(recipe_of(pictures, *packed), "texts", 2) == 2
    assert micro_batch(recipe_of(pictures, *packed), "pictures", 2) == 8
