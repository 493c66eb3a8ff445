"""Projectors: from an encoder's features to the space in which a loss compares them."""

from abc import ABC, abstractmethod

from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl_scale.heads.head import Head
from ssl_scale.heads.mlp import MLP, Norm
from ssl_scale.part import Count, Given


class Projector(Head, ABC):
    """Maps features row by row.

    Attributes:
        out: width of what comes out.
    """

    out: int

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "*rows width"], valid: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows out"]:
        """Project; rows that are not valid touch no statistics and come out as anything finite."""


class LinearProjector(Projector):
    """One linear map without bias.

    Paper: Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020,
    figure 3 (``W_i``, ``W_t``).

    Args:
        out: width of the shared space (the paper's d_e).
        width: features of the input.
    """

    def __init__(self, out: Count, *, width: Given[int]) -> None:
        super().__init__()
        self.out = out
        self.linear = nn.Linear(width, out, bias=False)

    def forward(
        self, x: Float[Tensor, "*rows width"], valid: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows out"]:
        """Project each row."""
        out: Tensor = self.linear(x)
        return out


class MLPProjector(Projector):
    """A multi-layer perceptron.

    Paper: A Simple Framework for Contrastive Learning of Visual Representations, arXiv 2002.05709,
    section 2.1 (``g``); BYOL, arXiv 2006.07733, section 3.3 (``g``).

    Args:
        hidden: width of the hidden layers.
        out: width of what comes out.
        layers: number of linear layers.
        norm: after each hidden layer; ``batch`` is over the global batch.
        last_norm: end with a batch norm that neither scales nor shifts (SimSiam, arXiv 2011.10566,
            section 4.4; MoCo v3).
        last_bias: whether the last layer has a bias; a loss that only looks at differences between
            rows (VICReg, Barlow Twins) has no use for one.
        width: features of the input.
    """

    def __init__(
        self,
        hidden: Count,
        out: Count,
        layers: Count = 2,
        norm: Norm = "batch",
        last_norm: bool = False,
        last_bias: bool = True,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.out = out
        self.mlp = MLP([width, *[hidden] * (layers - 1), out], norm, last_norm, last_bias)

    def forward(
        self, x: Float[Tensor, "*rows width"], valid: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows out"]:
        """Project each row."""
        out: Tensor = self.mlp(x, valid)
        return out
