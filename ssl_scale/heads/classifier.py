"""Classifiers: from pooled features to one logit a class."""

from jaxtyping import Float
from torch import Tensor, nn

from ssl_scale.heads.head import Head
from ssl_scale.part import Count, Given


class Classifier(Head):
    """One linear layer.

    Args:
        num_classes: logits that come out.
        width: features of the input.
    """

    def __init__(self, num_classes: Count, *, width: Given[int]) -> None:
        super().__init__()
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows classes"]:
        """The logits of each row."""
        out: Tensor = self.linear(x)
        return out
