"""Prototypes: directions that features are compared with; the head of DINO, iBOT and SwAV.

The weight is normalised where it is used, so only its directions count.
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl_scale.heads.head import Head
from ssl_scale.heads.mlp import MLP, Activation, Norm
from ssl_scale.part import Count, Given


class Prototypes(nn.Linear):
    """The cosine of each row of unit length with each prototype.

    Args:
        width: features of a row.
        num: how many prototypes.
    """

    def __init__(self, width: int, num: int) -> None:
        super().__init__(width, num, bias=False)

    def forward(
        self, x: Float[Tensor, "*rows width"], frozen: bool = False
    ) -> Float[Tensor, "*rows prototypes"]:
        """Compare; frozen prototypes get no gradient."""
        weight = self.weight.detach() if frozen else self.weight
        return F.linear(x, F.normalize(weight, dim=-1))


class PrototypeHead(Head):
    """A multi-layer perceptron to a bottleneck, which is brought to unit length and compared.

    Papers: Emerging Properties in Self-Supervised Vision Transformers (DINO), arXiv 2104.14294,
    section 3.1 and appendix C (``h``: three layers with GELU, a bottleneck of 256, a layer with
    weight norm of gain 1); Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments (SwAV), arXiv 2006.09882, section 3.1 and appendix A.1 (two layers with batch norm
    and ReLU, 128 features, ``C``).

    Differs: SwAV writes its prototypes back at unit length after each step; here they are
    normalised where they are used, as weight norm does.

    Args:
        prototypes: how many (the papers' K).
        hidden: width of the hidden layers.
        bottleneck: features that are compared with the prototypes.
        layers: number of linear layers up to the bottleneck.
        norm: after each hidden layer; ``batch`` is over the global batch.
        activation: after it.
        width: features of the input.
    """

    def __init__(
        self,
        prototypes: Count,
        hidden: Count = 2048,
        bottleneck: Count = 256,
        layers: Count = 3,
        norm: Norm = "none",
        activation: Activation = "gelu",
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.out, self.bottleneck = prototypes, bottleneck
        self.mlp = MLP([width, *[hidden] * (layers - 1), bottleneck], norm, activation=activation)
        self.prototypes = Prototypes(bottleneck, prototypes)

    def forward(
        self,
        x: Float[Tensor, "*rows width"],
        valid: Bool[Tensor, "*rows"] | None = None,
        frozen: bool = False,
    ) -> Float[Tensor, "*rows prototypes"]:
        """The cosine of each row with each prototype.

        Args:
            x: features.
            valid: which rows batch norms count; the others come out as anything finite.
            frozen: whether the prototypes get no gradient.
        """
        out: Tensor = self.prototypes(self.embed(x, valid), frozen)
        return out

    def embed(
        self, x: Float[Tensor, "*rows width"], valid: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows bottleneck"]:
        """What is compared with the prototypes: rows of unit length."""
        return F.normalize(self.mlp(x, valid), dim=-1)
