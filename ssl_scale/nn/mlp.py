"""The feed-forward half of a transformer block."""

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ssl_scale.nn.linear import Linear

FeedForwardKind: TypeAlias = Literal["gelu", "quick_gelu", "swiglu"]


class FeedForward(nn.Module):
    """Linear, GELU, linear.

    Args:
        width: features of a token.
        hidden: features between the layers.
        dropout: probability of zeroing an output.
        init_std: see `Linear`.
        is_quick: GELU as ``x * sigmoid(1.702 x)`` (arXiv 1606.08415, section 2), which CLIP has.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        dropout: float = 0.0,
        init_std: float | None = None,
        is_quick: bool = False,
    ) -> None:
        super().__init__()
        self.dropout, self.is_quick = dropout, is_quick
        self.up = Linear(width, hidden, init_std=init_std)
        self.down = Linear(hidden, width, init_std=init_std)

    def forward(self, tokens: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """Apply both layers."""
        inside = self.up(tokens)
        inside = inside * torch.sigmoid(1.702 * inside) if self.is_quick else F.gelu(inside)
        out: Tensor = self.down(inside)
        return F.dropout(out, self.dropout, self.training) if self.dropout else out


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))``, gate and up in one matrix.

    Paper: GLU Variants Improve Transformer, arXiv 2002.05202, equation 6.

    Args:
        width: features of a token.
        hidden: features between the layers of the plain form; the gated one has two thirds of
            them, rounded up to a multiple of 8, and so as many parameters (DINOv2's code).
        dropout: probability of zeroing an output.
        init_std: see `Linear`.
    """

    def __init__(
        self, width: int, hidden: int, dropout: float = 0.0, init_std: float | None = None
    ) -> None:
        super().__init__()
        gated = (hidden * 2 // 3 + 7) // 8 * 8
        self.dropout = dropout
        self.gate_up = Linear(width, 2 * gated, init_std=init_std, fused=2)
        self.down = Linear(gated, width, init_std=init_std)

    def forward(self, tokens: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """Apply the layers."""
        gate, up = self.gate_up(tokens).chunk(2, dim=-1)
        out: Tensor = self.down(F.silu(gate) * up)
        return F.dropout(out, self.dropout, self.training) if self.dropout else out


def make_feed_forward(
    kind: FeedForwardKind, width: int, hidden: int, dropout: float, init_std: float | None
) -> nn.Module:
    """The named feed-forward layer."""
    if kind == "swiglu":
        return SwiGLU(width, hidden, dropout, init_std)
    return FeedForward(width, hidden, dropout, init_std, is_quick=kind == "quick_gelu")
