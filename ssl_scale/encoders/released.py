"""Which tensors of models that `transformers` saves our encoders' parameters are made of.

The names are those on disk, which released weights have. `transformers` keeps query, key and value
apart, and gives [CLS] a position of its own; here they are fused, and added.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_scale.encoders.text import TextTransformer
from ssl_scale.encoders.transformer import TransformerEncoder
from ssl_scale.encoders.vision import VisionTransformer
from ssl_scale.nn.blocks import Block
from ssl_scale.nn.mlp import FeedForward

Make: TypeAlias = Callable[..., Tensor]


@dataclass(frozen=True)
class Origin:
    """What one parameter is made of.

    Args:
        names: tensors of the released model.
        make: from them to the parameter.
    """

    names: tuple[str, ...]
    make: Make


@dataclass(frozen=True)
class Family:
    """How a kind of released models names things.

    Args:
        anchor: a name that every model of the kind has; what stands before it in a file is the
            model's place in a larger one.
        root: where in a larger model the tower is, where there are several; else empty.
        blocks: prefix of block n.
        layer: our module in a block -> theirs; several are put together.
        outside: our parameter -> what it is made of; ``module`` stands for weight and bias.
        heads: name of the number of heads in ``config.json``.
        activation: name of the activation.
    """

    anchor: str
    blocks: str
    layer: Mapping[str, str | tuple[str, ...]]
    outside: Mapping[str, Origin]
    root: str = ""
    heads: str = "num_attention_heads"
    activation: str = "hidden_act"


def _same(name: str) -> Origin:
    return Origin((name,), lambda x: x)


def _module(ours: str, theirs: str) -> dict[str, Origin]:
    return {f"{ours}.{kind}": _same(f"{theirs}.{kind}") for kind in ("weight", "bias")}


def _with_place(cls: Tensor, table: Tensor, *registers: Tensor) -> Float[Tensor, "prefix width"]:
    """[CLS] with its position, the first of the table, then registers, which have none."""
    width = cls.shape[-1]
    first = cls.reshape(1, width) + table.reshape(-1, width)[:1]
    return torch.cat([first, *(register.reshape(-1, width) for register in registers)])


def _without_first(table: Tensor) -> Float[Tensor, "places width"]:
    return table.reshape(-1, table.shape[-1])[1:]


def _flat(kernel: Tensor) -> Float[Tensor, "width values"]:
    return kernel.flatten(1)


def _vision(registers: tuple[str, ...] = ()) -> dict[str, Origin]:
    """What ViT and DINOv2 have around their blocks."""
    table = "embeddings.position_embeddings"
    patches = "embeddings.patch_embeddings.projection"
    return {
        "stem.projection.weight": Origin((f"{patches}.weight",), _flat),
        "stem.projection.bias": _same(f"{patches}.bias"),
        "prefix.tokens": Origin(("embeddings.cls_token", table, *registers), _with_place),
        "position.table": Origin((table,), _without_first),
        "mask_fill.token": Origin(("embeddings.mask_token",), lambda x: x.flatten()),
        **_module("trunk.norm_after", "layernorm"),
    }


_ATTENTION: dict[str, str | tuple[str, ...]] = {
    "attention.qkv": tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
    "attention.out": "attention.output.dense",
}
_VIT = Family(
    anchor="embeddings.cls_token",
    blocks="encoder.layer.",
    layer={
        **_ATTENTION,
        "norm_1": "layernorm_before",
        "norm_2": "layernorm_after",
        "feed_forward.up": "intermediate.dense",
        "feed_forward.down": "output.dense",
    },
    outside=_vision(),
)
_DINO_LAYER: dict[str, str | tuple[str, ...]] = {
    **_ATTENTION,
    "norm_1": "norm1",
    "norm_2": "norm2",
    "scale_1.factors": "layer_scale1.lambda1",
    "scale_2.factors": "layer_scale2.lambda1",
    "feed_forward.up": "mlp.fc1",
    "feed_forward.gate_up": "mlp.weights_in",
    # The plain form's last layer, or the gated one's.
    "feed_forward.down": "mlp.fc2",
}
_DINO = Family("embeddings.cls_token", "encoder.layer.", _DINO_LAYER, _vision())
_DINO_REGISTERS = Family(
    "embeddings.cls_token", "encoder.layer.", _DINO_LAYER, _vision(("embeddings.register_tokens",))
)
_CLIP_LAYER: dict[str, str | tuple[str, ...]] = {
    "attention.qkv": tuple(f"self_attn.{part}_proj" for part in "qkv"),
    "attention.out": "self_attn.out_proj",
    "norm_1": "layer_norm1",
    "norm_2": "layer_norm2",
    "feed_forward.up": "mlp.fc1",
    "feed_forward.down": "mlp.fc2",
}
_CLIP_TABLE = "embeddings.position_embedding.weight"
_CLIP_VISION = Family(
    anchor="embeddings.class_embedding",
    root="vision_model.",
    blocks="encoder.layers.",
    layer=_CLIP_LAYER,
    outside={
        "stem.projection.weight": Origin(("embeddings.patch_embedding.weight",), _flat),
        # Its patches have no bias.
        "stem.projection.bias": Origin(("embeddings.class_embedding",), torch.zeros_like),
        "prefix.tokens": Origin(("embeddings.class_embedding", _CLIP_TABLE), _with_place),
        "position.table": Origin((_CLIP_TABLE,), _without_first),
        **_module("trunk.norm_before", "pre_layrnorm"),
        **_module("trunk.norm_after", "post_layernorm"),
    },
)
_CLIP_TEXT = Family(
    anchor="embeddings.token_embedding.weight",
    root="text_model.",
    blocks="encoder.layers.",
    layer=_CLIP_LAYER,
    outside={
        "embedding.weight": _same("embeddings.token_embedding.weight"),
        "position.table": _same(_CLIP_TABLE),
        **_module("trunk.norm_after", "final_layer_norm"),
    },
)
_BERT = Family(
    anchor="embeddings.word_embeddings.weight",
    blocks="encoder.layer.",
    layer={
        "attention.qkv": tuple(f"attention.self.{part}" for part in ("query", "key", "value")),
        "attention.out": "attention.output.dense",
        "norm_1": "attention.output.LayerNorm",
        "norm_2": "output.LayerNorm",
        "feed_forward.up": "intermediate.dense",
        "feed_forward.down": "output.dense",
    },
    outside={
        "embedding.weight": _same("embeddings.word_embeddings.weight"),
        "position.table": _same("embeddings.position_embeddings.weight"),
        "segments.weight": _same("embeddings.token_type_embeddings.weight"),
        **_module("trunk.norm_before", "embeddings.LayerNorm"),
    },
)

FAMILIES: dict[type[TransformerEncoder], dict[str, Family]] = {
    VisionTransformer: {
        "vit": _VIT,
        "dinov2": _DINO,
        "dinov2_with_registers": _DINO_REGISTERS,
        "clip": _CLIP_VISION,
        "clip_vision_model": _CLIP_VISION,
    },
    TextTransformer: {"bert": _BERT, "clip": _CLIP_TEXT, "clip_text_model": _CLIP_TEXT},
}


@dataclass(frozen=True)
class Match:
    """What of a released model goes where.

    Args:
        origins: our parameter -> what it is made of, in the names of the file.
        missing: our parameters of which the model has nothing.
        left: the model's tensors that nothing is made of.
        skipped: those of them that are in its blocks, without which the encoder computes less.
    """

    origins: Mapping[str, Origin] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def match(encoder: torch.nn.Module, config: Mapping[str, Any], names: Sequence[str]) -> Match:
    """Find out what the encoder's parameters are made of; nothing is read.

    Args:
        encoder: ours.
        config: the model's ``config.json``.
        names: of its tensors.

    Raises:
        ValueError: there are no such models for this encoder, or they compute something else.
    """
    family = _family(encoder, config)
    prefix = _prefix(family, names)
    _check_settings(encoder, family, config)
    available = set(names)
    origins: dict[str, Origin] = {}
    missing = []
    for ours, _ in encoder.named_parameters():
        origin = origin_of(family, ours, lambda name: prefix + name in available)
        wanted = tuple(prefix + name for name in origin.names) if origin else ()
        if origin is None or not available.issuperset(wanted):
            missing.append(ours)
        else:
            origins[ours] = Origin(wanted, origin.make)
    used = {name for origin in origins.values() for name in origin.names}
    left = tuple(sorted(available - used))
    skipped = tuple(name for name in left if name.startswith(prefix + family.blocks))
    return Match(origins, tuple(missing), left, skipped)


def _family(encoder: torch.nn.Module, config: Mapping[str, Any]) -> Family:
    kinds: dict[str, Family] = next(
        (found for kind, found in FAMILIES.items() if isinstance(encoder, kind)), {}
    )
    kind = config.get("model_type")
    if kind not in kinds:
        raise ValueError(
            f"model_type must be one of {sorted(kinds)} for {type(encoder).__name__}, but is "
            f"{kind!r}; HFEncoder takes any model whole"
        )
    return kinds[str(kind)]


def _prefix(family: Family, names: Sequence[str]) -> str:
    found = [
        name.removesuffix(family.anchor)
        for name in names
        if f".{name}".endswith(f".{family.anchor}")
    ]
    inside = [prefix for prefix in found if f".{prefix}".endswith(f".{family.root}")]
    if not inside and "" not in found:
        raise ValueError(
            f"the weights must hold {family.root}{family.anchor}, but hold {sorted(names)[:3]}, ..."
        )
    return inside[0] if inside else ""


def origin_of(family: Family, ours: str, has: Callable[[str], bool]) -> Origin | None:
    """What a parameter of ours is made of, without the prefix of a larger model; None for nothing.

    Args:
        family: the kind of released models.
        ours: the parameter.
        has: whether the released model has a tensor of a name.
    """
    if ours in family.outside:
        return family.outside[ours]
    if not ours.startswith("trunk.blocks."):
        return None
    number, inner = ours.removeprefix("trunk.blocks.").split(".", 1)
    module, _, kind = inner.rpartition(".")
    theirs = family.layer.get(inner) or family.layer.get(module)
    if theirs is None:
        return None
    before = f"{family.blocks}{number}."
    if inner in family.layer:
        return _same(f"{before}{theirs}")
    parts = (theirs,) if isinstance(theirs, str) else theirs
    names = tuple(f"{before}{part}.{kind}" for part in parts)
    gated = f"{before}mlp.weights_out.{kind}"
    if module == "feed_forward.down" and has(gated):
        names = (gated,)
    return Origin(names, lambda *tensors: torch.cat(tensors))


def _check_settings(encoder: torch.nn.Module, family: Family, config: Mapping[str, Any]) -> None:
    """What shapes do not tell must be equal."""
    own = config.get(f"{family.root.removesuffix('_model.')}_config") if family.root else None
    told = {**config, **(own or {})}
    block: Any = next(module for module in encoder.modules() if isinstance(module, Block))
    kinds = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_python": "gelu"}
    compared = {
        "num_heads": (block.attention.num_heads, told.get(family.heads)),
        "norm_eps": (block.norm_1.eps, told.get("layer_norm_eps")),
    }
    if isinstance(block.feed_forward, FeedForward):
        mine = "quick_gelu" if block.feed_forward.is_quick else "gelu"
        theirs = told.get(family.activation)
        compared["mlp"] = (mine, kinds.get(str(theirs), theirs))
    for argument, (ours, theirs) in compared.items():
        if theirs is not None and ours != theirs:
            raise ValueError(f"{argument} must be {theirs}, as in config.json, but is {ours}")
