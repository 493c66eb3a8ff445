"""A linear layer that initialises itself.

Under ``deepspeed.zero.Init`` a layer's parameters are partitioned as soon as its constructor ends,
so no parent can initialise them afterwards. Hence every layer here knows its own initial values.
"""

import math

import torch
from torch import nn


class Linear(nn.Linear):
    """``x W^T + b`` with zero bias.

    Args:
        inputs: features that come in.
        outputs: features that come out.
        bias: whether there is a bias.
        init_std: standard deviation of a normal truncated at two deviations (ViT, BERT: 0.02); None
            means Xavier's uniform, whose scale follows the width (MAE), so it suits any size.
        fused: how many projections of equal size lie in one weight (query, key, value); each is
            initialised as if it stood alone.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool = True,
        init_std: float | None = None,
        fused: int = 1,
    ) -> None:
        # Set first: torch's constructor calls `reset_parameters`.
        self.init_std, self.fused = init_std, fused
        super().__init__(inputs, outputs, bias)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the initial values from torch's generator."""
        if self.init_std is None:
            bound = math.sqrt(6 / (self.in_features + self.out_features / self.fused))
            self.weight.uniform_(-bound, bound)
        else:
            std = self.init_std
            nn.init.trunc_normal_(self.weight, std=std, a=-2 * std, b=2 * std)
        if self.bias is not None:
            self.bias.zero_()
