"""Learned tokens: those put before a sequence, and the one put in the place of hidden tokens."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Prefix(nn.Module):
    """Learned tokens before every sequence: [CLS] and registers.

    Paper: Vision Transformers Need Registers, arXiv 2309.16588.

    Args:
        num: how many.
        width: features of a token.
    """

    def __init__(self, num: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(num, width) * 0.02)

    def forward(
        self, tokens: Float[Tensor, "sequences tokens width"]
    ) -> Float[Tensor, "sequences longer width"]:
        """The sequences with the prefix before them."""
        prefix = self.tokens.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        return torch.cat([prefix, tokens], dim=1)


class MaskFill(nn.Module):
    """Puts one learned vector in the place of hidden tokens.

    Args:
        width: features of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(width) * 0.02)

    def forward(
        self,
        tokens: Float[Tensor, "sequences tokens width"],
        hidden: Bool[Tensor, "sequences tokens"],
    ) -> Float[Tensor, "sequences tokens width"]:
        """The tokens, with the learned vector where hidden."""
        return torch.where(hidden[..., None], self.token.to(tokens.dtype), tokens)
