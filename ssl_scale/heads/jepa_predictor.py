"""The predictor of joint-embedding predictive architectures: from visible tokens to hidden ones."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_scale.heads.head import Head
from ssl_scale.nn.linear import Linear
from ssl_scale.nn.packing import Packing
from ssl_scale.nn.position import sincos_table
from ssl_scale.nn.tokens import MaskFill
from ssl_scale.nn.trunk import Trunk
from ssl_scale.part import Count, Given, Positive


class JEPAPredictor(Head):
    """A narrow transformer that sees the context and, at the places of one target set, mask tokens.

    Paper: Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture,
    arXiv 2301.08243, section 3 and appendix A.1 (``g_phi``). Each target set is predicted by
    itself, from the whole context.

    Args:
        hidden: width of the predictor's tokens.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: features inside the feed-forward layers, over `hidden`.
        width: features of the encoder's tokens, which are predicted.
    """

    def __init__(
        self,
        hidden: Count = 384,
        depth: Count = 6,
        num_heads: Count = 12,
        mlp_ratio: Positive = 4.0,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.embed = Linear(width, hidden)
        self.fill = MaskFill(hidden)
        self.trunk = Trunk(hidden, depth, num_heads, mlp_ratio)
        self.predict = Linear(hidden, width)

    def forward(
        self,
        tokens: Float[Tensor, "batch crops tokens width"],
        origin: Int[Tensor, "batch crops tokens"],
        valid: Bool[Tensor, "batch crops tokens"],
        targets: Bool[Tensor, "batch crops sets places"],
        grid: tuple[int, ...],
    ) -> Float[Tensor, "targets width"]:
        """Predict the features at each true place of each set, in the order of ``targets[...]``.

        Args:
            tokens: what the encoder made of the visible places.
            origin: place in the grid of each of `tokens`.
            valid: which of `tokens` are real.
            targets: what is predicted.
            grid: places along each axis.
        """
        num_sets, num_places = targets.shape[2:]
        embedded: Tensor = self.embed(tokens)
        table = sincos_table(grid, embedded.shape[-1], tokens.device).to(embedded.dtype)
        everywhere = torch.ones(1, num_places, dtype=torch.bool, device=tokens.device)
        asked = self.fill(torch.zeros_like(table)[None], everywhere) + table
        # One sequence a set: the context, then a mask token at every place, of which few are kept.
        context = (embedded + table[origin])[:, :, None].expand(-1, -1, num_sets, -1, -1)
        sequences = torch.cat(
            [context.flatten(0, 2), asked.expand(targets[..., 0].numel(), -1, -1)], dim=1
        )
        seen = valid[:, :, None].expand(-1, -1, num_sets, -1) & targets.any(-1, keepdim=True)
        packing = Packing.of(torch.cat([seen, targets], dim=-1).flatten(0, 2))
        out, _ = self.trunk(packing.pack(sequences), packing=packing)
        is_target = packing.place >= tokens.shape[2]
        predicted: Tensor = self.predict(out[is_target])
        return predicted
