"""Look-up tables, and the sharing of one weight by two modules."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Embedding(nn.Embedding):
    """A vector for each id, drawn from a normal distribution.

    Args:
        num: number of ids.
        width: features of a vector.
        init_std: standard deviation of the initial values.
    """

    def __init__(self, num: int, width: int, init_std: float = 0.02) -> None:
        # Set first: torch's constructor calls `reset_parameters`.
        self.init_std = init_std
        super().__init__(num, width)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the initial values from torch's generator."""
        self.weight.normal_(std=self.init_std)


class Tied(nn.Module):
    """A linear layer whose weight is another module's parameter, such as `Embedding.weight`.

    The parameter is registered here as well: ZeRO-3 gathers a parameter for the modules that
    register it, and using another module's weight directly finds it empty.

    Args:
        weight: the shared parameter ``[outputs, inputs]``.
        bias: whether to add a bias of its own.
    """

    def __init__(self, weight: nn.Parameter, bias: bool = True) -> None:
        super().__init__()
        self.weight = weight
        # ZeRO-3's partitioned parameters are empty; their true shape is kept in `ds_shape`.
        outputs = getattr(weight, "ds_shape", weight.shape)[0]
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """``x W^T + b``."""
        return F.linear(x, self.weight, self.bias)
