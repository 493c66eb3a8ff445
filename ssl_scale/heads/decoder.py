"""Decoders: from the visible tokens of a masked grid to something for every place of it."""

from abc import ABC, abstractmethod

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_scale.heads.head import Head


class Decoder(Head, ABC):
    """Fills in the hidden places of a grid."""

    @abstractmethod
    def forward(
        self,
        tokens: Float[Tensor, "batch crops tokens width"],
        origin: Int[Tensor, "batch crops tokens"],
        valid: Bool[Tensor, "batch crops tokens"],
        prefix: Float[Tensor, "batch crops prefix width"],
        places: Bool[Tensor, "batch crops places"],
        grid: tuple[int, ...],
    ) -> Float[Tensor, "batch crops places out"]:
        """Decode.

        Args:
            tokens: what the encoder made of the visible places.
            origin: place in the grid of each of `tokens`.
            valid: which of `tokens` are real.
            prefix: [CLS] and register tokens; may be empty.
            places: which places of the grid exist.
            grid: places along each axis.
        """
