"""Encoders that start from released weights compute what `transformers` computes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from ssl_scale.encoders.text import TextTransformer
from ssl_scale.encoders.transformer import TransformerEncoder
from ssl_scale.encoders.vision import VisionTransformer
from ssl_scale.errors import RecipeError, SslScaleError
from ssl_scale.recipe.init_from import InitFrom
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.system.build import build_system
from ssl_scale.system.initial import Report, fill_encoder
from ssl_scale.types import Mask, View
from tests.train.tiny import fit_ranks, make_recipe, outcome_of

SIZES: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
MLP: dict[str, Any] = {"intermediate_size": 48}
PICTURES: dict[str, Any] = {"image_size": 8, "patch_size": 4}
OURS: dict[str, Any] = {"width": 24, "depth": 2, "num_heads": 3}
VISION: dict[str, Any] = {**OURS, "patch": 4, "size_px": 8}
CLIP: dict[str, Any] = {**OURS, "mlp_ratio": 2, "mlp": "quick_gelu", "norm_eps": 1e-5}
VOCAB, END = 50, 49


def save(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Save a model every value of which is random; the initial ones are often 0 or 1."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return model.eval()


def clip(folder: Path) -> CLIPModel:
    text = {**SIZES, **MLP, "vocab_size": VOCAB, "max_position_embeddings": 12}
    text |= {"eos_token_id": END, "bos_token_id": 1, "pad_token_id": 0}
    vision = {**SIZES, **MLP, **PICTURES}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=5))
    return save(model, folder)


def pictures() -> tuple[View, Tensor]:
    values = torch.randn(3, 2, 3, 8, 8)
    view = View(values, torch.ones(3, 2, 1, dtype=torch.bool), torch.arange(3))
    return view, values.flatten(0, 1)


def texts() -> tuple[View, Tensor, Tensor]:
    valid = torch.arange(9) < torch.tensor([[9, 4], [6, 2], [3, 7]])[..., None]
    ids = torch.randint(2, VOCAB - 1, valid.shape)
    ids[..., 0] = 1
    last = valid.sum(-1) - 1
    ids.scatter_(-1, last[..., None], END)
    segments = (torch.arange(9) > 2).long().expand_as(ids)
    view = View(ids, valid, torch.arange(3), {"segment": segments})
    return view, ids.flatten(0, 1), valid.flatten(0, 1)


def started(encoder: TransformerEncoder, folder: Path, **options: Any) -> Report:
    encoder.eval()
    return fill_encoder(encoder, InitFrom(hf=str(folder), **options), "image")


def near(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("whole", [False, True])
def test_vit(whole: bool, tmp_path: Path) -> None:
    config = ViTConfig(**SIZES, **MLP, **PICTURES)
    model: Any = ViTForImageClassification(config) if whole else ViTModel(config)
    model = save(model, tmp_path)
    encoder = VisionTransformer(**VISION, mlp_ratio=2, norm_eps=1e-12)
    report = started(encoder, tmp_path)
    view, values = pictures()
    features = encoder(view)
    out = (model.vit if whole else model)(values).last_hidden_state
    near(features.tokens.flatten(0, 1), out[:, 1:])
    near(features.pooled.flatten(0, 1), out[:, 0])
    left = ("classifier.bias", "classifier.weight")
    assert report.left == (left if whole else ("pooler.dense.bias", "pooler.dense.weight"))
    assert not report.missing
    assert set(report.matched) == {name for name, _ in encoder.named_parameters()}


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2(registers: int, gated: bool, tmp_path: Path) -> None:
    options = {**SIZES, **PICTURES, "mlp_ratio": 4, "use_swiglu_ffn": gated}
    model: Any = (
        Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(**options, num_register_tokens=registers)
        )
        if registers
        else Dinov2Model(Dinov2Config(**options))
    )
    save(model, tmp_path)
    encoder = VisionTransformer(
        **VISION,
        layer_scale=1.0,
        mlp="swiglu" if gated else "gelu",
        registers=registers,
        mask_token=True,
    )
    report = started(encoder, tmp_path)
    assert not report.missing and not report.left
    view, values = pictures()
    features, out = encoder(view), model(values).last_hidden_state
    near(features.tokens.flatten(0, 1), out[:, 1 + registers :])
    near(features.prefix.flatten(0, 1), out[:, : 1 + registers])
    hidden = torch.rand(3, 2, 4) < 0.5
    masked = encoder(view, Mask(hidden, "replace")).tokens.flatten(0, 1)
    expected = model(values, bool_masked_pos=hidden.flatten(0, 1)).last_hidden_state
    near(masked, expected[:, 1 + registers :])


@pytest.mark.parametrize("whole", [False, True])
def test_clips_vision_encoder(whole: bool, tmp_path: Path) -> None:
    model = clip(tmp_path).vision_model
    if not whole:
        save(model, tmp_path)
    assert isinstance(model, CLIPVisionModel)
    encoder = VisionTransformer(**{**VISION, **CLIP}, stem_norm=True)
    report = started(encoder, tmp_path)
    assert any(name.startswith("text_model.") for name in report.left) is whole
    view, values = pictures()
    features, out = encoder(view), model(values)
    near(features.pooled.flatten(0, 1), out.pooler_output)
    near(features.tokens.flatten(0, 1), model.post_layernorm(out.last_hidden_state[:, 1:]))


@pytest.mark.parametrize("whole", [False, True])
def test_clips_text_encoder(whole: bool, tmp_path: Path) -> None:
    model = clip(tmp_path).text_model
    if not whole:
        save(model, tmp_path)
    assert isinstance(model, CLIPTextModel)
    encoder = TextTransformer(**CLIP, causal=True, pool="last", max_tokens=12, vocab_size=VOCAB)
    report = started(encoder, tmp_path)
    assert any(name.startswith("vision_model.") for name in report.left) is whole
    view, ids, valid = texts()
    features = encoder(view)
    out = model(input_ids=ids, attention_mask=valid.long())
    near(features.pooled.flatten(0, 1), out.pooler_output)
    near(features.tokens.flatten(0, 1)[valid], out.last_hidden_state[valid])


@pytest.mark.parametrize("old", [False, True])
def test_bert(old: bool, tmp_path: Path) -> None:
    config = BertConfig(**SIZES, **MLP, vocab_size=VOCAB, max_position_embeddings=12)
    model = save(BertForMaskedLM(config), tmp_path).bert
    if old:
        tensors = load_file(tmp_path / "model.safetensors")
        renamed = {
            name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): value
            for name, value in tensors.items()
        }
        save_file(renamed, tmp_path / "model.safetensors")
    encoder = TextTransformer(
        **OURS,
        mlp_ratio=2,
        norm_first=False,
        norm_eps=1e-12,
        pool="first",
        segments=2,
        max_tokens=12,
        vocab_size=VOCAB,
    )
    report = started(encoder, tmp_path)
    assert not report.missing
    assert report.left and all(name.startswith("cls.") for name in report.left)
    view, ids, valid = texts()
    features = encoder(view)
    out = model(
        input_ids=ids,
        attention_mask=valid.long(),
        token_type_ids=view.side["segment"].flatten(0, 1),
    ).last_hidden_state
    near(features.tokens.flatten(0, 1)[valid], out[valid])
    near(features.pooled.flatten(0, 1), out[:, 0])
    first = model(input_ids=ids, attention_mask=valid.long()).last_hidden_state
    near(encoder(view.but(side={})).pooled.flatten(0, 1), first[:, 0])


def vit(folder: Path) -> ViTModel:
    return save(ViTModel(ViTConfig(**SIZES, **MLP, **PICTURES)), folder)


FITTING: dict[str, Any] = {**VISION, "mlp_ratio": 2, "norm_eps": 1e-12}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"width": 12}, r"table must be \[4, 12\], but is \[4, 24\] in .*arguments must be those"),
        ({"size_px": 16}, r"position.table must be \[16, 24\], but is \[4, 24\]"),
        ({"depth": 1}, r"must have all blocks .* no place for encoder.layer.1.*partial: true"),
        ({"depth": 3}, r"must hold all of the encoder, but lack trunk.blocks.2"),
        ({"layer_scale": 0.1}, r"lack trunk.blocks.0.scale_1.factors"),
        ({"num_heads": 4}, "num_heads must be 3, as in config.json, but is 4"),
        ({"norm_eps": 1e-6}, "norm_eps must be 1e-12, as in config.json, but is 1e-06"),
        ({"mlp": "quick_gelu"}, "mlp must be gelu, as in config.json, but is quick_gelu"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    vit(tmp_path)
    with pytest.raises(SslScaleError, match=f"encoders.image.init_from: .*{told}"):
        started(VisionTransformer(**{**FITTING, **options}), tmp_path)


def test_parts_may_start_afresh_if_told(tmp_path: Path) -> None:
    model = vit(tmp_path)
    encoder = VisionTransformer(**{**FITTING, "depth": 3}, mask_token=True)
    before = encoder.trunk.blocks[2].attention.qkv.weight.clone()
    report = started(encoder, tmp_path, partial=True)
    assert torch.equal(encoder.trunk.blocks[2].attention.qkv.weight, before)
    assert "mask_fill.token" in report.missing
    near(encoder.stem.projection.bias, model.embeddings.patch_embeddings.projection.bias)
    assert str(report).startswith(f"{len(report.matched)} parameters from {tmp_path}; fresh: ")


def test_other_models_and_pickles_are_refused(tmp_path: Path) -> None:
    vit(tmp_path)
    encoder = TextTransformer(**OURS, vocab_size=VOCAB)
    with pytest.raises(SslScaleError, match=r"one of \['bert', .*\] for TextTransformer.*'vit'"):
        started(encoder, tmp_path)
    os.rename(tmp_path / "model.safetensors", tmp_path / "pytorch_model.bin")
    with pytest.raises(SslScaleError, match="pytorch_model.bin is a pickle, which may run code"):
        started(VisionTransformer(**FITTING), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(SslScaleError, match="must hold safetensors"):
        started(VisionTransformer(**FITTING), tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../a"}})
    )
    with pytest.raises(SslScaleError, match="must name files beside it"):
        started(VisionTransformer(**FITTING), tmp_path)
    with pytest.raises(SslScaleError, match="`save_pretrained` wrote, but config.json cannot"):
        started(VisionTransformer(**FITTING), tmp_path / "nowhere")


def test_a_model_in_several_files(tmp_path: Path) -> None:
    model = vit(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="10KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    encoders = [VisionTransformer(**FITTING) for _ in range(2)]
    for encoder, name in zip(encoders, ("one", "many"), strict=True):
        started(encoder, tmp_path / name)
    for one, other in zip(encoders[0].parameters(), encoders[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_export_is_started_from_under_its_own_name_or_another(tmp_path: Path) -> None:
    source, encoder = VisionTransformer(**FITTING), VisionTransformer(**FITTING)
    save_file(source.state_dict(), tmp_path / "encoder.picture.safetensors")
    report = fill_encoder(encoder, InitFrom(exported=str(tmp_path), encoder="picture"), "image")
    assert not report.missing and not report.left
    for one, other in zip(encoder.parameters(), source.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(SslScaleError, match="encoder.image.safetensors must be weights that"):
        fill_encoder(encoder, InitFrom(exported=str(tmp_path)), "image")


def starting_recipe(folder: Path, init_from: str) -> Path:
    """The tiny recipe whose image encoder starts from weights."""
    path = make_recipe(folder)
    text = path.read_text()
    old = "{type: VisionTransformer, width: 8,"
    assert old in text
    path.write_text(text.replace(old, f"{old} init_from: {init_from},"))
    return path


def tiny_vit(folder: Path) -> ViTModel:
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        num_channels=1,
        layer_norm_eps=1e-6,
    )
    return save(ViTModel(config), folder)


def test_a_recipe_starts_from_weights_and_so_does_its_teacher(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ssl_scale")
    tiny_vit(tmp_path / "vit")
    path = starting_recipe(tmp_path, "{hf: start}")
    bound = {"start": str(tmp_path / "vit")}
    recipe = read_recipe(path, bindings=bound)
    assert recipe.fingerprint() == read_recipe(make_recipe(tmp_path)).fingerprint()
    system = build_system(recipe)
    assert f"encoders.image starts from 18 parameters from {tmp_path}/vit" in caplog.text
    stem = load_file(tmp_path / "vit" / "model.safetensors")[
        "embeddings.patch_embeddings.projection.weight"
    ]
    for name in ("encoders.image", "teachers.ema.encoders.image"):
        found = system.get_submodule(name).stem.projection.weight
        assert torch.equal(found, stem.flatten(1)), name
    assert not torch.equal(
        build_system(recipe, initial=False).encoders["image"].stem.projection.weight, found
    )


def test_a_malformed_start_is_a_fault_of_the_recipe(tmp_path: Path) -> None:
    path = starting_recipe(tmp_path, "{hf: ./a, exported: ./b}")
    with pytest.raises(RecipeError, match="tiny.yaml:.*must have either hf or exported, but both"):
        read_recipe(path)
    path = starting_recipe(tmp_path, "{hff: ./a}")
    with pytest.raises(RecipeError, match="init_from.hff: this section takes no 'hff'; did you"):
        read_recipe(path)


@pytest.mark.dist
@pytest.mark.slow
def test_sharded_runs_start_from_the_same_weights_and_resume_without_them(tmp_path: Path) -> None:
    tiny_vit(tmp_path / "vit")
    path = starting_recipe(tmp_path, f"{{hf: {tmp_path}/vit}}")
    for stage in (2, 3):
        fit_ranks(path, tmp_path / str(stage), 2, f"train.zero={stage}", max_steps=4)
    os.rename(tmp_path / "vit", tmp_path / "gone")
    for stage in (2, 3):
        fit_ranks(path, tmp_path / str(stage), 2, f"train.zero={stage}")
    outcomes = [outcome_of(tmp_path / str(stage)) for stage in (2, 3)]
    for name, value in outcomes[0].weights.items():
        torch.testing.assert_close(outcomes[1].weights[name], value, rtol=0, atol=1e-6)
