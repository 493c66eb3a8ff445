"""A learned softmax temperature, in a module of its own so that ZeRO-3 finds the parameter."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_scale.part import Positive


class Temperature(nn.Module):
    """The factor of the logits, ``1 / temperature``, learned on a logarithmic scale.

    Paper: Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020,
    section 2.5 (``t`` of figure 3 is ``log_scale``).

    Beyond the bound the gradient still passes, so that the parameter can come back: a plain clamp
    would leave it there for good.

    Args:
        start: temperature at the start of training.
        max_scale: the factor never exceeds this.
    """

    def __init__(self, start: Positive = 0.07, max_scale: Positive = 100.0) -> None:
        super().__init__()
        if 1 / start > max_scale:
            raise ValueError(f"1 / start must be at most {max_scale}, but is {1 / start}")
        self.max_log = math.log(max_scale)
        self.log_scale = nn.Parameter(torch.tensor([-math.log(start)]))

    def forward(self) -> Float[Tensor, ""]:
        """The factor, in at least fp32."""
        log = self.log_scale[0]
        log = log.float() if log.dtype in (torch.bfloat16, torch.float16) else log
        return (log + (log.clamp(max=self.max_log) - log).detach()).exp()
