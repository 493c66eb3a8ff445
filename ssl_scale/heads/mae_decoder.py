"""The decoder of masked autoencoders: a small transformer over the full grid."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_scale.heads.decoder import Decoder
from ssl_scale.nn.linear import Linear
from ssl_scale.nn.packing import Packing
from ssl_scale.nn.position import SinCosPosition
from ssl_scale.nn.tokens import MaskFill
from ssl_scale.nn.trunk import Trunk
from ssl_scale.part import Count, Given, Positive


class MAEDecoder(Decoder):
    """A mask token at each hidden place, sine-cosine positions, transformer blocks, one linear map.

    Paper: Masked Autoencoders Are Scalable Vision Learners, arXiv 2111.06377, section 3.

    Args:
        hidden: width of the decoder's tokens.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: features inside the feed-forward layers, over `hidden`.
        width: features of the encoder's tokens.
        out: numbers predicted for each place.
    """

    def __init__(
        self,
        hidden: Count = 512,
        depth: Count = 8,
        num_heads: Count = 16,
        mlp_ratio: Positive = 4.0,
        *,
        width: Given[int],
        out: Given[int],
    ) -> None:
        super().__init__()
        self.embed = Linear(width, hidden)
        self.fill = MaskFill(hidden)
        self.position = SinCosPosition()
        self.trunk = Trunk(hidden, depth, num_heads, mlp_ratio)
        self.predict = Linear(hidden, out)

    def forward(
        self,
        tokens: Float[Tensor, "batch crops tokens width"],
        origin: Int[Tensor, "batch crops tokens"],
        valid: Bool[Tensor, "batch crops tokens"],
        prefix: Float[Tensor, "batch crops prefix width"],
        places: Bool[Tensor, "batch crops places"],
        grid: tuple[int, ...],
    ) -> Float[Tensor, "batch crops places out"]:
        """What is predicted for every place; see `Decoder` for the arguments."""
        num_prefix = prefix.shape[2]
        embedded = self.embed(torch.cat([prefix, tokens], dim=2).flatten(0, 1))
        grown, visible = put_in_place(
            embedded[:, num_prefix:], origin.flatten(0, 1), valid.flatten(0, 1), places.shape[-1]
        )
        full = self.position(self.fill(grown, ~visible), grid)
        sequence = torch.cat([embedded[:, :num_prefix], full], dim=1)
        there = places.any(-1, keepdim=True).expand(-1, -1, num_prefix)
        packing = Packing.of(torch.cat([there, places], dim=-1).flatten(0, 1))
        out, _ = self.trunk(packing.pack(sequence), packing=packing)
        decoded: Tensor = self.predict(packing.unpack(out)[:, num_prefix:])
        return decoded.view(*places.shape, decoded.shape[-1])


def put_in_place(
    tokens: Float[Tensor, "sequences tokens width"],
    origin: Int[Tensor, "sequences tokens"],
    valid: Bool[Tensor, "sequences tokens"],
    num_places: int,
) -> tuple[Float[Tensor, "sequences places width"], Bool[Tensor, "sequences places"]]:
    """Put tokens back where they came from, zeros elsewhere; also says where tokens are."""
    # Tokens that are not valid go to a place of their own, behind the grid, and are cut off.
    slot = torch.where(valid, origin, num_places)
    grown = tokens.new_zeros(len(tokens), num_places + 1, tokens.shape[-1])
    grown = grown.scatter(1, slot[..., None].expand_as(tokens), tokens)
    filled = torch.zeros_like(grown[..., 0], dtype=torch.bool).scatter(1, slot, True)
    return grown[:, :-1], filled[:, :-1]
