"""The learned scale and bias of sigmoid losses, in a module of their own (ZeRO-3 finds them)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_scale.part import Positive


class ScaleAndBias(nn.Module):
    """A factor of the logits, learned on a logarithmic scale, and a number added to them.

    Paper: Sigmoid Loss for Language Image Pre-Training, arXiv 2303.15343, section 3.2 (``t'`` is
    ``log_scale``, ``b`` is ``bias``).

    Args:
        scale: factor at the start of training.
        bias: number at the start of training.
    """

    def __init__(self, scale: Positive = 10.0, bias: float = -10.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor([math.log(scale)]))
        self.bias = nn.Parameter(torch.tensor([float(bias)]))

    def forward(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Factor and number, in at least fp32."""
        log_scale, bias = (
            number[0].float() if number.dtype in (torch.bfloat16, torch.float16) else number[0]
            for number in (self.log_scale, self.bias)
        )
        return log_scale.exp(), bias
