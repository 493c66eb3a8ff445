"""Multi-layer perceptrons with a norm between the layers: what projectors and predictors are."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl_scale.heads.batch_norm import SyncedBatchNorm

Norm: TypeAlias = Literal["batch", "layer", "none"]
Activation: TypeAlias = Literal["relu", "gelu"]


class MLP(nn.Module):
    """Linear layers with norm and activation between them.

    Args:
        widths: of the input, of each hidden layer, of the output.
        norm: after each hidden linear layer; ``batch`` is over the global batch.
        last_norm: end with a batch norm that neither scales nor shifts.
        last_bias: the last linear layer has a bias (never before a batch norm).
        activation: after each hidden layer and its norm.
    """

    def __init__(
        self,
        widths: Sequence[int],
        norm: Norm,
        last_norm: bool = False,
        last_bias: bool = True,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        *hidden, last = zip(widths, widths[1:], strict=False)
        self.hidden = nn.ModuleList(_HiddenLayer(*sizes, norm, activation) for sizes in hidden)
        self.last = nn.Linear(*last, bias=last_bias and not last_norm)
        self.last_norm = SyncedBatchNorm(widths[-1], affine=False) if last_norm else None

    def forward(
        self, x: Float[Tensor, "*rows width"], valid: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows out"]:
        """Apply the layers; batch norms count only valid rows."""
        for layer in self.hidden:
            x = layer(x, valid)
        out: Tensor = self.last(x)
        return out if self.last_norm is None else self.last_norm(out, valid)


class _HiddenLayer(nn.Module):
    def __init__(self, width: int, out: int, norm: Norm, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
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
        return F.relu(x) if self.activation == "relu" else F.gelu(x)
