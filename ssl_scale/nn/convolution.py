"""A convolution that initialises itself; see `ssl_scale.nn.linear` for why."""

import torch
from torch import nn


class Convolution(nn.Conv2d):
    """A square convolution without bias, padded so that a stride of 1 keeps the picture's size.

    Paper: Delving Deep into Rectifiers, arXiv 1502.01852, equation 14 (its backward case: the
    variance is two over the number of outputs that an input reaches).

    Args:
        inputs: channels that come in.
        outputs: channels that come out.
        kernel: side of the kernel, odd.
        stride: cells from one place of the kernel to the next.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the initial values from torch's generator; torch's constructor calls this."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
