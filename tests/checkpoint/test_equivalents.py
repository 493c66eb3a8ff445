"""Consolidated encoders compute in `transformers` what they compute here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from ssl_scale.checkpoint.model_files import write_model_files
from ssl_scale.checkpoint.reader import Reader
from ssl_scale.checkpoint.weights import Weights
from ssl_scale.encoders.encoder import Encoder
from ssl_scale.encoders.equivalent import NoEquivalentError
from ssl_scale.encoders.hf import HFEncoder, LoRA
from ssl_scale.encoders.resnet import ResNet
from ssl_scale.encoders.text import TextTransformer
from ssl_scale.encoders.vision import VisionTransformer
from ssl_scale.part import Spec
from ssl_scale.system.transformers_model import as_transformers_model
from ssl_scale.types import View
from tests.checkpoint.writing import save_module

OURS: dict[str, Any] = {"width": 24, "depth": 2, "num_heads": 3}
VISION: dict[str, Any] = {**OURS, "patch": 4, "size_px": 8, "mlp_ratio": 2}
CLIP: dict[str, Any] = {**OURS, "mlp_ratio": 2, "norm_eps": 1e-5}
VOCAB = 50


def randomized(encoder: Encoder) -> Encoder:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return encoder.eval()


def loaded(folder: Path, encoder: Encoder, spec: Spec[Encoder], dtype: Any = torch.float32) -> Any:
    """The encoder through a checkpoint of two ranks and a folder, as `transformers` loads it."""
    run = save_module(folder / "run", {"encoders.image": encoder}, 2)
    weights = Weights(Reader(run))
    model = as_transformers_model(spec, "encoders.image", weights, dtype)
    (folder / "out").mkdir()
    model.write_config(folder / "out")
    write_model_files(folder / "out", model.tensors, 2_000)
    assert len(list((folder / "out").glob("*.safetensors"))) > 1
    found, told = AutoModel.from_pretrained(folder / "out", output_loading_info=True)
    assert not told["unexpected_keys"] and not told["mismatched_keys"]
    assert all(name.startswith("pooler.") for name in told["missing_keys"])
    return found.eval()


def pictures(height: int = 8, width: int = 8) -> tuple[View, Tensor]:
    values = torch.randn(3, 1, 3, height, width)
    view = View(values, torch.ones(3, 1, 1, dtype=torch.bool), torch.arange(3))
    return view, values.flatten(0, 1)


def texts() -> tuple[View, Tensor, Tensor]:
    valid = torch.arange(9) < torch.tensor([[9], [6], [3]])[..., None]
    ids = torch.randint(2, VOCAB, valid.shape)
    segments = (torch.arange(9) > 2).long().expand_as(ids)
    view = View(ids, valid, torch.arange(3), {"segment": segments})
    return view, ids.flatten(0, 1), valid.flatten(0, 1)


def near(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("vit", {}),
    "with a mask token": ("vit", {"mask_token": True, "norm_eps": 1e-12}),
    "wide": ("vit", {"size_px": (8, 12)}),
    "scaled": ("dinov2", {"layer_scale": 0.1}),
    "scaled, with a mask token": ("dinov2", {"layer_scale": 0.1, "mask_token": True}),
    "gated": ("dinov2", {"mlp": "swiglu"}),
    "with registers": ("dinov2_with_registers", {"registers": 4}),
    "gated, scaled, with registers": (
        "dinov2_with_registers",
        {"registers": 2, "layer_scale": 0.1, "mlp": "swiglu"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_vision_transformers(kind: str, tmp_path: Path) -> None:
    model_type, options = KINDS[kind]
    spec: Spec[Encoder] = Spec.of(VisionTransformer, **{**VISION, **options})
    encoder = randomized(spec.build())
    model = loaded(tmp_path, encoder, spec)
    assert model.config.model_type == model_type
    sides = options.get("size_px", (8, 8))
    view, values = pictures(*sides)
    features, out = encoder(view), model(values).last_hidden_state
    num = encoder.num_prefix  # type: ignore[attr-defined]
    near(features.prefix.flatten(0, 1), out[:, :num])
    near(features.tokens.flatten(0, 1), out[:, num:])


@pytest.mark.parametrize("mlp", ["gelu", "quick_gelu"])
def test_clips_vision_encoder(mlp: str, tmp_path: Path) -> None:
    spec: Spec[Encoder] = Spec.of(VisionTransformer, **{**VISION, **CLIP}, mlp=mlp, stem_norm=True)
    encoder = randomized(spec.build())
    model = loaded(tmp_path, encoder, spec)
    view, values = pictures()
    features, out = encoder(view), model(values)
    near(features.pooled.flatten(0, 1), out.pooler_output)
    near(features.tokens.flatten(0, 1), model.post_layernorm(out.last_hidden_state[:, 1:]))


def test_clips_text_encoder(tmp_path: Path) -> None:
    spec: Spec[Encoder] = Spec.of(
        TextTransformer, **CLIP, mlp="quick_gelu", causal=True, pool="last", max_tokens=12
    )
    encoder = randomized(spec.build(vocab_size=VOCAB))
    model = loaded(tmp_path, encoder, spec)
    view, ids, valid = texts()
    out = model(input_ids=ids, attention_mask=valid.long()).last_hidden_state
    near(encoder(view).tokens.flatten(0, 1)[valid], out[valid])


@pytest.mark.parametrize("segments", [0, 2])
def test_bert(segments: int, tmp_path: Path) -> None:
    options = {**OURS, "norm_first": False, "norm_eps": 1e-12, "pool": "first", "max_tokens": 12}
    spec: Spec[Encoder] = Spec.of(TextTransformer, **options, segments=segments)
    encoder = randomized(spec.build(vocab_size=VOCAB))
    model = loaded(tmp_path, encoder, spec)
    view, ids, valid = texts()
    more = {"token_type_ids": view.side["segment"].flatten(0, 1)} if segments else {}
    out = model(input_ids=ids, attention_mask=valid.long(), **more).last_hidden_state
    near(encoder(view).tokens.flatten(0, 1)[valid], out[valid])


BERT = {
    "model_type": "bert", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 48, "vocab_size": VOCAB, "max_position_embeddings": 12,
}  # fmt: skip
CONVNEXT = {"model_type": "convnext", "depths": [1, 1], "hidden_sizes": [8, 16], "num_stages": 2}


def test_a_model_of_transformers_comes_back_as_it_was(tmp_path: Path) -> None:
    spec: Spec[Encoder] = Spec.of(HFEncoder, config=BERT)
    encoder = randomized(spec.build(vocab_size=VOCAB))
    model = loaded(tmp_path, encoder, spec)
    for name, value in encoder.model.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(model.state_dict()[name], value), name


def test_a_model_for_pictures_in_half_precision(tmp_path: Path) -> None:
    spec: Spec[Encoder] = Spec.of(HFEncoder, config=CONVNEXT)
    encoder = randomized(spec.build())
    model = loaded(tmp_path, encoder, spec, torch.bfloat16)
    assert model.dtype == torch.bfloat16
    for name, value in encoder.model.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(model.state_dict()[name], value.bfloat16()), name


def test_adapters_are_merged(tmp_path: Path) -> None:
    adapters = Spec.of(LoRA, rank=2, alpha=6, targets=("query", "dense"))
    spec: Spec[Encoder] = Spec.of(HFEncoder, config=BERT, adapters=adapters)
    encoder = randomized(spec.build(vocab_size=VOCAB))
    model = loaded(tmp_path, encoder, spec)
    view, ids, valid = texts()
    out = model(input_ids=ids, attention_mask=valid.long()).last_hidden_state
    plain = View(view.values, view.valid, view.seeds)
    near(encoder(plain).tokens.flatten(0, 1)[valid], out[valid])


WITHOUT: dict[str, tuple[type[Encoder], dict[str, Any]]] = {
    "ResNet is our own": (ResNet, {"preset": "18"}),
    "positions are not learned": (VisionTransformer, {**VISION, "position": "sincos"}),
    "queries and keys are normed": (VisionTransformer, {**VISION, "qk_norm": True}),
    "norms are not layer norms": (VisionTransformer, {**VISION, "norm": "rms"}),
    "pool must be cls, but is mean": (VisionTransformer, {**VISION, "pool": "mean"}),
    "norm_first must be true": (VisionTransformer, {**VISION, "norm_first": False}),
    "mlp must be gelu": (VisionTransformer, {**VISION, "mlp": "quick_gelu"}),
    "mlp_ratio must be a whole": (VisionTransformer, {**VISION, "registers": 1, "mlp_ratio": 2.5}),
    "neither registers nor": (VisionTransformer, {**VISION, "stem_norm": True, "registers": 1}),
    "square pictures only": (VisionTransformer, {**VISION, "stem_norm": True, "size_px": (8, 4)}),
    "neither layer_scale nor": (VisionTransformer, {**VISION, "stem_norm": True, "mlp": "swiglu"}),
    "are before": (TextTransformer, OURS),
    "causal: true and no segments": (TextTransformer, {**OURS, "pool": "mean"}),
    "causal must be false": (
        TextTransformer,
        {**OURS, "pool": "last", "causal": True, "norm_first": False},
    ),
    "layer_scale must be null": (TextTransformer, {**OURS, "pool": "mean", "layer_scale": 1.0}),
}


@pytest.mark.parametrize("reason", WITHOUT)
def test_what_has_no_equivalent_is_told(reason: str, tmp_path: Path) -> None:
    part, options = WITHOUT[reason]
    spec: Spec[Encoder] = Spec.of(part, **options)
    given = {"vocab_size": VOCAB} if part is TextTransformer else {}
    run = save_module(tmp_path, {"encoders.image": spec.build(**given)}, 1)
    with pytest.raises(NoEquivalentError, match=reason):
        as_transformers_model(spec, "encoders.image", Weights(Reader(run)), torch.float32)


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    spec: Spec[Encoder] = Spec.of(VisionTransformer, **VISION)
    run = save_module(tmp_path, {"encoders.image": spec.build()}, 1)
    other: Spec[Encoder] = Spec.of(VisionTransformer, **{**VISION, "width": 12})
    with pytest.raises(NoEquivalentError, match="is not of the recipe's encoder"):
        as_transformers_model(other, "encoders.image", Weights(Reader(run)), torch.float32)
    deeper: Spec[Encoder] = Spec.of(HFEncoder, config=BERT)
    with pytest.raises(NoEquivalentError, match="the checkpoint lacks encoders.image.model"):
        as_transformers_model(deeper, "encoders.image", Weights(Reader(run)), torch.float32)
    nowhere: Spec[Encoder] = Spec.of(HFEncoder, folder=str(tmp_path / "none"))
    with pytest.raises(NoEquivalentError, match="its configuration is not here"):
        as_transformers_model(nowhere, "encoders.image", Weights(Reader(run)), torch.float32)
