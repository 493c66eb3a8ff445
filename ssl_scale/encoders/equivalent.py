"""Models of `transformers` that compute what our encoders compute: the way back of `released`.

Here query, key and value come apart again, and a first place is made for [CLS], of zeros: its
vector already holds its position. CLIP's patches have no bias, so ours goes into their positions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssl_scale.encoders.released import FAMILIES, Family, Origin, origin_of
from ssl_scale.encoders.text import TextTransformer
from ssl_scale.encoders.transformer import TransformerEncoder
from ssl_scale.encoders.vision import VisionTransformer
from ssl_scale.nn.blocks import Block
from ssl_scale.nn.mlp import FeedForward, SwiGLU
from ssl_scale.nn.position import LearnedPosition


class NoEquivalentError(ValueError):
    """`transformers` has no model that computes the same."""


@dataclass(frozen=True)
class Equivalent:
    """A model of `transformers`.

    Args:
        config: with its ``model_type``: what `AutoConfig.for_model` takes.
        origins: its tensor -> what it is made of, by our names.
        fresh: beginnings of names of its tensors that we have nothing for, and nobody needs.
        note: what who reads its outputs must know.
    """

    config: Mapping[str, Any]
    origins: Mapping[str, Origin]
    fresh: tuple[str, ...] = ()
    note: str = ""


def equivalent_of(encoder: torch.nn.Module) -> Equivalent:
    """The model that computes what an encoder computes in evaluation; no value is looked at.

    Raises:
        NoEquivalentError: there is none; the message says why.
    """
    if not isinstance(encoder, VisionTransformer | TextTransformer):
        raise NoEquivalentError(f"{type(encoder).__name__} is our own")
    block = _block(encoder)
    wrong = [
        what
        for what, is_so in {
            "norms are not layer norms": not isinstance(block.norm_1, torch.nn.LayerNorm),
            "queries and keys are normed": block.attention.query_norm is not None,
            "positions are not learned": not isinstance(encoder.position, LearnedPosition),
        }.items()
        if is_so
    ]
    if wrong:
        raise NoEquivalentError(" and ".join(wrong))
    return _vision(encoder) if isinstance(encoder, VisionTransformer) else _text(encoder)


def _vision(encoder: VisionTransformer) -> Equivalent:
    block, position = _block(encoder), encoder.position
    assert isinstance(position, LearnedPosition)
    if encoder.pool != "cls":
        raise NoEquivalentError(f"pool must be cls, but is {encoder.pool}")
    if not block.norm_first:
        raise NoEquivalentError("norm_first must be true, but is false")
    sides = tuple(encoder.patch * count for count in position.grid)
    registers = encoder.num_prefix - 1
    config: dict[str, Any] = {
        **_sizes(encoder, block),
        "image_size": sides[0] if sides[0] == sides[1] else list(sides),
        "patch_size": encoder.patch,
        "num_channels": encoder.channels,
    }
    width, patch = encoder.width, (encoder.channels, encoder.patch, encoder.patch)
    is_plain = isinstance(block.feed_forward, FeedForward)
    if encoder.trunk.norm_before is not None:
        return _clip_vision(encoder, config, patch)
    if registers or block.scale_1 is not None or not is_plain:
        return _dinov2(encoder, config, patch, registers)
    if block.feed_forward.is_quick:
        raise NoEquivalentError("mlp must be gelu, or stem_norm true, but is quick_gelu")
    config |= {"model_type": "vit", "intermediate_size": _hidden(block), "hidden_act": "gelu"}
    origins = {
        **dict(_same_names(encoder, FAMILIES[VisionTransformer]["vit"])),
        **_embeddings(width, patch, 0),
    }
    note = "read last_hidden_state; its pooler is fresh"
    return Equivalent(config, origins, ("pooler.",), note)


def _dinov2(
    encoder: VisionTransformer,
    config: dict[str, Any],
    patch: tuple[int, ...],
    registers: int,
) -> Equivalent:
    block, width = _block(encoder), encoder.width
    if isinstance(block.feed_forward, FeedForward) and block.feed_forward.is_quick:
        raise NoEquivalentError("mlp must be gelu or swiglu, but is quick_gelu")
    kind = "dinov2_with_registers" if registers else "dinov2"
    config |= {
        "model_type": kind,
        "mlp_ratio": _mlp_ratio(encoder, block),
        "use_swiglu_ffn": isinstance(block.feed_forward, SwiGLU),
        "hidden_act": "gelu",
    }
    if registers:
        config["num_register_tokens"] = registers
    family = FAMILIES[VisionTransformer][kind]
    origins = {
        **dict(_same_names(encoder, family)),
        **_embeddings(width, patch, registers),
        "embeddings.mask_token": _zeros(1, width)
        if encoder.mask_fill is None
        else Origin(("mask_fill.token",), lambda x: x.view(1, -1)),
    }
    if block.scale_1 is None:
        for number in range(encoder.depth):
            for branch in (1, 2):
                name = f"{family.blocks}{number}.layer_scale{branch}.lambda1"
                origins[name] = Origin((), partial(torch.ones, width))
    return Equivalent(config, origins)


def _clip_vision(
    encoder: VisionTransformer, config: dict[str, Any], patch: tuple[int, ...]
) -> Equivalent:
    block, width = _block(encoder), encoder.width
    _refuse_for_clip(block)
    if encoder.num_prefix != 1 or encoder.mask_fill is not None:
        raise NoEquivalentError("a stem norm goes with neither registers nor a mask token")
    if isinstance(config["image_size"], list):
        raise NoEquivalentError("a stem norm goes with square pictures only")
    config |= {"model_type": "clip_vision_model", "intermediate_size": _hidden(block)}
    config["hidden_act"] = _activation(block)
    origins = {
        **dict(_same_names(encoder, FAMILIES[VisionTransformer]["clip_vision_model"])),
        "embeddings.class_embedding": Origin(("prefix.tokens",), lambda x: x[0]),
        "embeddings.patch_embedding.weight": Origin(
            ("stem.projection.weight",), lambda x: x.view(-1, *patch)
        ),
        "embeddings.position_embedding.weight": Origin(
            ("position.table", "stem.projection.bias"),
            lambda table, bias: torch.cat([torch.zeros(1, width), table + bias]),
        ),
    }
    note = "read pooler_output; last_hidden_state is without the last norm"
    return Equivalent(config, origins, note=note)


def _text(encoder: TextTransformer) -> Equivalent:
    block, position = _block(encoder), encoder.position
    assert isinstance(position, LearnedPosition)
    if encoder.num_prefix:
        raise NoEquivalentError("tokens of the encoder's own (pool: cls, registers) are before")
    if block.scale_1 is not None:
        raise NoEquivalentError("layer_scale must be null")
    config: dict[str, Any] = {
        **_sizes(encoder, block),
        "intermediate_size": _hidden(block),
        "hidden_act": _activation(block),
        "vocab_size": encoder.vocab_size,
        "max_position_embeddings": position.grid[0],
    }
    if block.norm_first:
        if not encoder.causal or encoder.segments is not None:
            raise NoEquivalentError("norm_first goes with causal: true and no segments (CLIP)")
        _refuse_for_clip(block)
        if encoder.trunk.norm_before is not None:
            raise NoEquivalentError("stem_norm must be false")
        family = FAMILIES[TextTransformer]["clip_text_model"]
        config |= {"model_type": "clip_text_model", "bos_token_id": -1, "eos_token_id": -1}
        note = "read last_hidden_state; which token ends a text is not known here"
        return Equivalent(config, dict(_same_names(encoder, family)), note=note)
    if encoder.causal:
        raise NoEquivalentError("causal must be false where norm_first is false (BERT)")
    family = FAMILIES[TextTransformer]["bert"]
    segments = encoder.segments.weight.shape[0] if encoder.segments is not None else 2
    config |= {"model_type": "bert", "type_vocab_size": segments}
    origins = dict(_same_names(encoder, family))
    if encoder.segments is None:
        origins["embeddings.token_type_embeddings.weight"] = _zeros(segments, encoder.width)
    note = "read last_hidden_state; its pooler is fresh"
    return Equivalent(config, origins, ("pooler.",), note)


def _same_names(encoder: TransformerEncoder, family: Family) -> Iterator[tuple[str, Origin]]:
    """Theirs -> ours, for what is copied or cut out of a fused tensor; the rest is done by hand."""
    is_gated = isinstance(_block(encoder).feed_forward, SwiGLU)
    for ours, _ in encoder.named_parameters():
        origin = origin_of(family, ours, lambda name: is_gated)
        if ours in _BY_HAND:
            continue
        if origin is None:
            raise NoEquivalentError(f"{ours} has no place in it")
        for place, theirs in enumerate(origin.names):
            yield theirs, Origin((ours,), partial(_piece, place, len(origin.names)))


_BY_HAND = (
    "stem.projection.weight",
    "prefix.tokens",
    "mask_fill.token",
)


def _piece(place: int, count: int, tensor: Tensor) -> Tensor:
    return tensor.chunk(count)[place]


def _embeddings(width: int, patch: tuple[int, ...], registers: int) -> dict[str, Origin]:
    """What ViT and DINOv2 have before their blocks, where it is not ours under another name."""
    first = Origin(("prefix.tokens",), lambda x: x[:1].view(1, 1, width))
    table = Origin(("position.table",), lambda x: torch.cat([torch.zeros(1, width), x])[None])
    found = {
        "embeddings.cls_token": first,
        "embeddings.position_embeddings": table,
        "embeddings.patch_embeddings.projection.weight": Origin(
            ("stem.projection.weight",), lambda x: x.view(-1, *patch)
        ),
    }
    if registers:
        rest = Origin(("prefix.tokens",), lambda x: x[1:].view(1, registers, width))
        found["embeddings.register_tokens"] = rest
    return found


def _zeros(*shape: int) -> Origin:
    return Origin((), partial(torch.zeros, *shape))


def _block(encoder: TransformerEncoder) -> Block:
    return next(module for module in encoder.modules() if isinstance(module, Block))


def _sizes(encoder: TransformerEncoder, block: Block) -> dict[str, Any]:
    norm = block.norm_1
    assert isinstance(norm, torch.nn.LayerNorm)
    return {
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": block.attention.num_heads,
        "layer_norm_eps": norm.eps,
    }


def _hidden(block: Block) -> int:
    if not isinstance(block.feed_forward, FeedForward):
        raise NoEquivalentError("mlp must not be swiglu")
    return block.feed_forward.up.weight.shape[0]


def _mlp_ratio(encoder: TransformerEncoder, block: Block) -> int:
    """DINOv2's is a whole number, from which both sides compute what is inside."""
    inside = block.feed_forward
    for ratio in range(1, 17):
        wanted = ratio * encoder.width
        if isinstance(inside, FeedForward) and inside.up.weight.shape[0] == wanted:
            return ratio
        if isinstance(inside, SwiGLU) and inside.down.weight.shape[1] == (
            (wanted * 2 // 3 + 7) // 8 * 8
        ):
            return ratio
    raise NoEquivalentError("mlp_ratio must be a whole number")


def _activation(block: Block) -> str:
    quick = isinstance(block.feed_forward, FeedForward) and block.feed_forward.is_quick
    return "quick_gelu" if quick else "gelu"


def _refuse_for_clip(block: Block) -> None:
    if block.scale_1 is not None or not isinstance(block.feed_forward, FeedForward):
        raise NoEquivalentError("CLIP's blocks have neither layer_scale nor swiglu")
