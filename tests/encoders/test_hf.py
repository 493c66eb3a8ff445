"""Models of `transformers` as encoders: any, from a folder, frozen, with adapters, sharded."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_scale.encoders.hf import HFEncoder, LoRA
from ssl_scale.errors import SslScaleError
from ssl_scale.part import Spec
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.system.build import build_system
from ssl_scale.system.pretrained_folder import describe
from ssl_scale.types import Mask, View
from tests.encoders.inputs import rows
from tests.train.tiny import (
    fit_ranks,
    make_recipe,
    outcome_of,
    system_of,
    train_plainly,
    worst_loss,
    worst_weight,
)

BLOCKS: dict[str, Any] = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 24,
}
# Of pictures of 16 x 16 pixels: tokens, and prefix tokens.
PICTURES: dict[str, tuple[dict[str, Any], int, int]] = {
    "vit": ({"model_type": "vit", **BLOCKS, "image_size": 16, "patch_size": 4}, 16, 1),
    "dinov2": ({"model_type": "dinov2", **BLOCKS, "image_size": 16, "patch_size": 8}, 4, 1),
    "convnext": (
        {"model_type": "convnext", "hidden_sizes": [4, 8], "depths": [1, 2], "num_stages": 2},
        4,
        0,
    ),
    "swin": (
        {
            "model_type": "swin",
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [2, 2],
            "window_size": 2,
            "image_size": 16,
            "patch_size": 2,
        },
        16,
        0,
    ),
}
TEXTS: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **BLOCKS, "vocab_size": 20, "max_position_embeddings": 9},
    "distilbert": {
        "model_type": "distilbert",
        "dim": 12,
        "n_layers": 2,
        "n_heads": 3,
        "hidden_dim": 24,
        "vocab_size": 20,
    },
}


def make(kind: str, **options: Any) -> HFEncoder:
    torch.manual_seed(1)
    config = PICTURES[kind][0] if kind in PICTURES else TEXTS[kind]
    return HFEncoder(config=config, vocab_size=20, mask_token=3, **options).eval()


def view_of(kind: str) -> View:
    """Of three samples with two crops; sample 1 is absent, and holds NaN or no id."""
    torch.manual_seed(2)
    if kind in PICTURES:
        values = torch.randn(3, 2, 3, 16, 16)
        values[1] = torch.nan
        valid = torch.ones(3, 2, 1, dtype=torch.bool)
        valid[1] = False
        return View(values, valid, torch.arange(3))
    valid = torch.arange(9) < torch.tensor([[9, 4], [0, 0], [3, 7]])[..., None]
    ids = torch.randint(4, 20, valid.shape)
    return View(torch.where(valid, ids, -5), valid, torch.arange(3))


@pytest.mark.parametrize("kind", [*PICTURES, *TEXTS])
def test_features_are_the_models(kind: str) -> None:
    encoder, view = make(kind), view_of(kind)
    features = encoder(view, keep=("stem", "layer.0"))
    here = view.present[:, 0]
    kept = rows(view, [0, 2])
    if kind in PICTURES:
        _, num_tokens, num_prefix = PICTURES[kind]
        out = encoder.model(pixel_values=kept.values.flatten(0, 1)).last_hidden_state
        out = out.flatten(2).mT if out.dim() == 4 else out
        expected = out[:, num_prefix:]
        assert features.tokens.shape == (3, 2, num_tokens, encoder.width)
        assert features.prefix.shape[2] == num_prefix
    else:
        valid = kept.valid.flatten(0, 1)
        ids = kept.values.flatten(0, 1).clamp(min=0)
        out = encoder.model(input_ids=ids, attention_mask=valid.long()).last_hidden_state
        expected = torch.where(valid[..., None], out, 0)
    torch.testing.assert_close(features.tokens[here].flatten(0, 1), expected)
    assert torch.equal(features.valid, encoder.layout(view).valid)
    assert not features.tokens[1].any() and not features.pooled[1].any()
    means = expected.sum(1) / features.valid[here].flatten(0, 1).sum(1, keepdim=True)
    torch.testing.assert_close(features.pooled[here].flatten(0, 1), means)
    assert features.kept["stem"].shape[:2] == (3, 2) and features.kept["layer.0"].isfinite().all()


@pytest.mark.parametrize("kind", [*PICTURES, *TEXTS])
def test_absent_samples_and_batch_mates_change_nothing(kind: str) -> None:
    encoder, view = make(kind), view_of(kind)
    found: list[list[Tensor]] = []
    for seen in (view, rows(view, [2, 0])):
        encoder.zero_grad()
        encoder(seen).pooled.square().sum().backward()
        found.append([p.grad for p in encoder.parameters() if p.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_pools(kind: str) -> None:
    view = view_of(kind)
    features = make(kind, pool="first")(view)
    first = features.prefix[:, :, 0] if kind == "vit" else features.tokens[:, :, 0]
    torch.testing.assert_close(features.pooled, first)
    features = make(kind, pool="last")(view)
    last = features.tokens[0, 1][features.valid[0, 1]][-1]
    torch.testing.assert_close(features.pooled[0, 1], last)
    encoder = make(kind, pool="model")
    pooler = encoder.model.pooler
    expected = torch.tanh(pooler.dense(first))
    torch.testing.assert_close(encoder(view).pooled[2], expected[2])
    assert pooler.dense.weight.requires_grad
    assert not make(kind).model.pooler.dense.weight.requires_grad, "nobody reads it"
    with pytest.raises(ValueError, match="the model pools nothing"):
        make("distilbert", pool="model")(view_of("distilbert"))


def test_masks() -> None:
    encoder, view = make("bert"), view_of("bert")
    hidden = (torch.rand(view.valid.shape) < 0.5) & view.valid
    replaced = view.but(values=torch.where(hidden, 3, view.values))
    torch.testing.assert_close(
        encoder(view, Mask(hidden, "replace")).tokens, encoder(replaced).tokens
    )
    encoder, view = make("swin"), view_of("swin")
    blank = view.but(values=view.values.clone())
    blank.values[..., :4] = 0
    hidden = torch.zeros(3, 2, 4, 4, dtype=torch.bool)
    hidden[..., 0] = True
    mask = Mask(hidden.flatten(2), "input")
    torch.testing.assert_close(encoder(view, mask).tokens, encoder(blank).tokens)
    with pytest.raises(ValueError, match="over pictures must be 'input', but is 'drop'"):
        encoder(view, Mask(hidden.flatten(2), "drop"))


@pytest.mark.parametrize("kind", ["convnext", "bert"])
def test_a_folder_brings_its_weights(kind: str, tmp_path: Path) -> None:
    source = make(kind)
    source.model.save_pretrained(tmp_path)
    torch.manual_seed(9)
    encoder, view = HFEncoder(folder=str(tmp_path)).eval(), view_of(kind)
    torch.testing.assert_close(encoder(view).tokens, source(view).tokens)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        HFEncoder(folder=str(tmp_path))


def test_an_export_needs_no_folder(tmp_path: Path) -> None:
    make("vit").model.save_pretrained(tmp_path)
    spec = Spec.of(HFEncoder, folder=str(tmp_path), adapters=Spec.of(LoRA, rank=2), pool="first")
    encoder, view = spec.build().eval(), view_of("vit")
    portable = encoder.portable(spec)
    assert str(tmp_path) not in str(describe(portable))
    other = portable.build().eval()
    other.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(other(view).pooled, encoder(view).pooled)


def test_a_frozen_model_neither_trains_nor_keeps_a_graph() -> None:
    encoder = make("vit", frozen=True)
    encoder.train()
    assert not encoder.model.training
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder(view_of("vit")).pooled.requires_grad


def test_adapters_start_as_nothing_and_are_all_that_trains() -> None:
    plain, adapted, view = make("vit"), make("vit", adapters=LoRA(2)), view_of("vit")
    torch.testing.assert_close(adapted(view).tokens, plain(view).tokens)
    adapted(view).pooled.square().sum().backward()
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained and all("lora" in name for name in trained)
    ups = [p for name, p in adapted.named_parameters() if "lora_B" in name and "pooler" not in name]
    assert all(p.grad.abs().max() > 0 for p in ups)
    few = make("vit", adapters=LoRA(2, targets=("q_proj",)))
    assert sum(p.requires_grad for p in few.parameters()) == 4  # down and up in two blocks


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SslScaleError, match=r"pip install 'ssl-scale\[peft\]'"):
        make("vit", adapters=LoRA(2))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "either folder or config must be given, but neither is"),
        ({"folder": "/nowhere"}, "/nowhere has no config.json"),
        ({"config": {"hidden_size": 8}}, "must name its model_type"),
        ({"config": {"model_type": "resnet"}}, "resnet must be frozen, for its batch norms"),
        ({"config": TEXTS["bert"], "vocab_size": 30}, "at least the tokenizer's, 30, but is 20"),
        (
            {"config": PICTURES["vit"][0], "frozen": True, "adapters": LoRA()},
            "frozen must be false where there are adapters",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        HFEncoder(**options)


def test_long_texts_and_causal_attention_are_refused() -> None:
    encoder, view = make("bert"), view_of("bert")
    longer = View(view.values.repeat(1, 1, 2), view.valid.repeat(1, 1, 2), view.seeds)
    with pytest.raises(ValueError, match="at most 9 tokens, but is 18"):
        encoder(longer)
    with pytest.raises(ValueError, match="must be 'full' for HFEncoder, but is 'causal'"):
        encoder(view, None, "causal")


TINY = (
    "{model_type: vit, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, "
    "intermediate_size: 16, image_size: 8, patch_size: 4, num_channels: 1}"
)
WAYS = {"whole": "", "frozen": ", frozen: true", "adapters": ", adapters: {type: LoRA, rank: 2}"}


def hf_recipe(folder: Path, way: str) -> Path:
    """The tiny recipe with a model of `transformers`; nothing drops its patches."""
    path = make_recipe(folder)
    text = path.read_text()
    start = text.index("    {type: VisionTransformer")
    end = text.index("\n", start)
    text = f"{text[:start]}    {{type: HFEncoder, config: {TINY}{WAYS[way]}}}{text[end:]}"
    start, end = text.index("  mae:\n"), text.index("  classify:")
    text = (text[:start] + text[end:]).replace("byol, mae, classify", "byol, classify")
    start, end = text.index("  patches:"), text.index("  words:")
    path.write_text(text[:start] + text[end:])
    return path


def test_it_stands_in_a_recipe(tmp_path: Path) -> None:
    system = build_system(read_recipe(hf_recipe(tmp_path, "adapters")))
    assert system.encoders["image"].width == 8
    taught = system.teachers["ema"].part("encoders.image")
    assert not any(p.requires_grad for p in taught.parameters())


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("way", WAYS)
def test_sharded_ranks_train_like_one_process(way: str, stage: int, tmp_path: Path) -> None:
    recipe = hf_recipe(tmp_path, way)
    settings = (f"train.zero={stage}", "train.steps=5")
    plain = train_plainly(recipe, *settings)
    fit_ranks(recipe, tmp_path / "run", 2, *settings)
    found = outcome_of(tmp_path / "run")
    assert worst_loss(found, plain) < 1e-5
    assert worst_weight(found.weights, plain.weights)[0] < 1e-5
    first = system_of(recipe).encoders["image"]
    moved = {
        name
        for name, p in first.named_parameters()
        if (plain.weights[f"encoders.image.{name}"] - p).abs().max() > 1e-4
    }
    if way == "frozen":
        assert not moved
    else:
        assert moved and (way == "whole" or all("lora" in name for name in moved))
