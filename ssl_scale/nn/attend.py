"""The attention core: one function on packed tokens, whatever kernel the machine has.

* Sequences of one length: `scaled_dot_product_attention` on a reshape.
* Different lengths on a GPU in half precision: torch's `varlen_attn`, else the flash-attn package.
* Different lengths elsewhere: a few groups of similar length, each padded to its longest under a
  mask. Padding is never attended to and its outputs are thrown away, so this is exact.

The GPU kernels have no CPU version. All paths are held to one plain reference in the tests.
"""

import importlib
import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.nn.packing import Group, Packing
from ssl_scale.types import Attend

# The variable-length kernels, by module and name, in the order of preference; torch has one from
# 2.10 on.
KERNELS = (
    ("torch.nn.attention.varlen", "varlen_attn"),
    ("flash_attn", "flash_attn_varlen_func"),
)

# On a CPU the fused kernel is slower than three plain operations on sequences this short.
_SHORT = 48


def attend(
    query: Float[Tensor, "total heads head_width"],
    key: Float[Tensor, "total heads head_width"],
    value: Float[Tensor, "total heads head_width"],
    packing: Packing,
    how: Attend = "full",
) -> Float[Tensor, "total heads head_width"]:
    """Softmax attention inside each sequence.

    Args:
        query: what each token looks for.
        key: what each token offers.
        value: what each token hands on.
        packing: where the sequences lie.
        how: ``full``; ``causal``: a token sees itself and what precedes it; ``diagonal``: only
            itself.
    """
    if how == "diagonal" or packing.total == 0:
        return value
    causal = how == "causal"
    if packing.common is not None:
        return _equal(query, key, value, packing.common, causal)
    if _has_varlen(query):
        return varlen(query, key, value, packing, causal)
    return grouped(query, key, value, packing, causal)


def _equal(query: Tensor, key: Tensor, value: Tensor, length: int, causal: bool) -> Tensor:
    shape = (-1, length, *query.shape[1:])
    query, key, value = (x.reshape(shape).transpose(1, 2) for x in (query, key, value))
    return _dense(query, key, value, causal, None).transpose(1, 2).flatten(0, 1)


def grouped(query: Tensor, key: Tensor, value: Tensor, packing: Packing, causal: bool) -> Tensor:
    """Attention by groups of similar length, for any device and precision."""
    queries, keys, values = (packing.to_groups(x) for x in (query, key, value))
    all_parts = zip(queries, keys, values, packing.groups, strict=True)
    return packing.from_groups([_one_group(*parts, causal) for parts in all_parts])


def _one_group(query: Tensor, key: Tensor, value: Tensor, group: Group, causal: bool) -> Tensor:
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    # Padding stands at the end, where causal attention does not look from any real token.
    inside = None if causal else group.inside
    return _dense(query, key, value, causal, inside).transpose(1, 2)


def _dense(
    query: Float[Tensor, "sequences heads length head_width"],
    key: Float[Tensor, "sequences heads length head_width"],
    value: Float[Tensor, "sequences heads length head_width"],
    causal: bool,
    inside: Bool[Tensor, "sequences length"] | None,
) -> Float[Tensor, "sequences heads length head_width"]:
    if query.is_meta:  # shapes alone (`ssl-scale plan`): as a GPU's kernel, which keeps no scores
        kernel = torch.ops.aten._scaled_dot_product_flash_attention
        shaped: Tensor = kernel(query, key, value, 0.0, causal)[0]
        return shaped
    length = query.shape[2]
    if query.device.type == "cpu" and length <= _SHORT and query.dtype.itemsize >= 4:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        if causal:
            later = torch.ones(length, length, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        if inside is not None:
            scores = scores.masked_fill(~inside[:, None, None], -torch.inf)
        mixed: Tensor = scores.softmax(-1) @ value
        return mixed
    mask = None if inside is None else inside[:, None, None]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)


@cache
def find_kernel(kernels: tuple[tuple[str, str], ...]) -> Callable[..., Any] | None:
    """The first kernel that this machine has.

    Looked for at its first use: torch's brings all of torch.compile with it, which takes seconds to
    import, and cannot be imported at all while ``deepspeed.zero.Init`` replaces torch's functions.
    """
    for module, name in kernels:
        try:
            found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
        return found
    return None


@cache
def _has_flash(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _has_varlen(query: Tensor) -> bool:
    """Whether a variable-length kernel takes these tensors."""
    return (
        query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 256
        and _has_flash(query.device)
        and find_kernel(KERNELS) is not None
    )


def varlen(query: Tensor, key: Tensor, value: Tensor, packing: Packing, causal: bool) -> Tensor:
    """Attention by a variable-length GPU kernel: torch's, else the package's."""
    ends, longest = packing.ends, packing.longest
    kernel = find_kernel(KERNELS)
    assert kernel is not None
    out: Tensor = kernel(
        query, key, value, ends, ends, longest, longest, **_causal_option(kernel, causal)
    )
    return out


@cache
def _causal_option(kernel: Callable[..., Any], causal: bool) -> dict[str, Any]:
    """How a kernel is told to be causal.

    torch 2.10 has a flag, later ones a window of keys (left, right) in which -1 means no limit;
    flash-attn has both, and its flag is the older.
    """
    names = inspect.signature(kernel).parameters
    if "causal" in names:
        return {"causal": causal}
    if "is_causal" in names:
        return {"is_causal": causal}
    return {"window_size": (-1, 0) if causal else (-1, -1)}
