"""Predictors: from the student's projection to the teacher's, in one space."""

from abc import ABC, abstractmethod

from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.heads.head import Head
from ssl_scale.heads.mlp import MLP, Norm
from ssl_scale.part import Count, Given


class Predictor(Head, ABC):
    """Maps a space into itself, row by row."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "*rows width"], valid: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows width"]:
        """Predict; rows that are not valid touch no statistics and come out as anything finite."""


class MLPPredictor(Predictor):
    """A multi-layer perceptron.

    Paper: Bootstrap your own latent, arXiv 2006.07733, section 3.3 (``q``).

    Args:
        hidden: width of the hidden layers.
        layers: number of linear layers.
        norm: after each hidden layer; ``batch`` is over the global batch.
        last_norm: end with a batch norm that neither scales nor shifts (MoCo v3's authors' code).
        width: features of input and output.
    """

    def __init__(
        self,
        hidden: Count,
        layers: Count = 2,
        norm: Norm = "batch",
        last_norm: bool = False,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.mlp = MLP([width, *[hidden] * (layers - 1), width], norm, last_norm)

    def forward(
        self, x: Float[Tensor, "*rows width"], valid: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows width"]:
        """Predict each row."""
        out: Tensor = self.mlp(x, valid)
        return out
