"""Norms over a token's features. Statistics are computed in fp32 whatever the tokens' type."""

from typing import Literal, TypeAlias

from torch import nn

Norm: TypeAlias = Literal["layer", "rms"]


def make_norm(kind: Norm, width: int, eps: float) -> nn.Module:
    """Layer norm (arXiv 1607.06450) or RMS norm (arXiv 1910.07467)."""
    return nn.LayerNorm(width, eps=eps) if kind == "layer" else nn.RMSNorm(width, eps=eps)
