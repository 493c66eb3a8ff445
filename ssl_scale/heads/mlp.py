"""Multi-layer perceptrons with a norm between the layers: what projectors and predictors are."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl_scale.heads.batch_norm import SyncedBatchNorm

Norm: TypeAlias = Literal["batch", "layer", "none"]


class MLP(nn.Module):
    """Linear layers with norm and ReLU between them.

    Args:
        widths: of the input, of each hidden layer, of the output.
        norm: after each hidden linear layer; ``batch`` is over the global batch.
    """

    def __init__(self, widths: Sequence[int], norm: Norm) -> None:
        super().__init__()
        *hidden, last = zip(widths, widths[1:], strict=False)
        self.hidden = nn.ModuleList(_HiddenLayer(*sizes, norm) for sizes in hidden)
        self.last = nn.Linear(*last)

    def forward(
        self, x: Float[Tensor, "*rows width"], valid: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows out"]:
        """Apply the layers; batch norms count only valid rows."""
        for layer in self.hidden:
            x = layer(x, valid)
        out: Tensor = self.last(x)
        return out


class _HiddenLayer(nn.Module):
    def __init__(self, width: int, out: int, norm: Norm) -> None:
        super().__init__()
        # The gradient of a bias before a batch norm is exactly zero; Adam would amplify its noise.
        self.linear = nn.Linear(width, out, bias=norm != "batch")
        self.norm: nn.Module | None = None
        if norm != "none":
            self.norm = SyncedBatchNorm(out) if norm == "batch" else nn.LayerNorm(out)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        x = self.linear(x)
        if isinstance(self.norm, SyncedBatchNorm):
            x = self.norm(x, valid)
        elif self.norm is not None:
            x = self.norm(x)
        return F.relu(x)
