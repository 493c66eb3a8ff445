"""The head of masked language modelling: from a token's features to a logit for each word."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ssl_scale.heads.head import Head
from ssl_scale.part import Given


class TokenHead(Head):
    """Linear, GELU, layer norm, then one linear layer to the vocabulary.

    Paper: BERT, arXiv 1810.04805, section 3.1; the layers are those of the authors' code
    (``get_masked_lm_output``).

    Differs: the last layer is not tied to the input embedding.

    Args:
        width: features of a token.
        vocab_size: logits that come out.
    """

    def __init__(self, *, width: Given[int], vocab_size: Given[int]) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.vocabulary = nn.Linear(width, vocab_size)

    def forward(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows words"]:
        """The logits of each row."""
        out: Tensor = self.vocabulary(self.norm(F.gelu(self.linear(x))))
        return out
