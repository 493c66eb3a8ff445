"""LayerScale: a learned factor for each feature of a residual branch."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Multiplies features by learned factors that start small.

    Paper: Going deeper with Image Transformers, arXiv 2103.17239, equation 4.

    Args:
        width: features of a token.
        start: initial factor.
    """

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.full((width,), start))

    def forward(self, tokens: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """The scaled features."""
        return tokens * self.factors
