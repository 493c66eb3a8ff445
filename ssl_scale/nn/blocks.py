"""A transformer block: attention and feed-forward, each on a residual branch."""

from jaxtyping import Float
from torch import Tensor, nn

from ssl_scale.nn.attention import Attention
from ssl_scale.nn.layer_scale import LayerScale
from ssl_scale.nn.mlp import FeedForwardKind, make_feed_forward
from ssl_scale.nn.norm import Norm, make_norm
from ssl_scale.nn.setting import Setting


class Block(nn.Module):
    """One layer of a trunk; tensor in, tensor out, so that it can be recomputed in the backward.

    Args:
        width: features of a token.
        num_heads: attention heads.
        hidden: features inside the feed-forward layer.
        mlp: kind of feed-forward layer.
        norm_first: whether each branch norms its input (ViT, GPT-2) or the sum after it is normed
            (BERT).
        norm: kind of norm.
        norm_eps: its epsilon.
        qk_norm: see `Attention`.
        layer_scale: initial factor of each branch; None for no factor.
        dropout: probability of zeroing an output of a branch.
        init_std: see `Linear`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden: int,
        mlp: FeedForwardKind = "gelu",
        norm_first: bool = True,
        norm: Norm = "layer",
        norm_eps: float = 1e-6,
        qk_norm: bool = False,
        layer_scale: float | None = None,
        dropout: float = 0.0,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.norm_1 = make_norm(norm, width, norm_eps)
        self.attention = Attention(width, num_heads, qk_norm, norm, norm_eps, dropout, init_std)
        self.scale_1 = None if layer_scale is None else LayerScale(width, layer_scale)
        self.norm_2 = make_norm(norm, width, norm_eps)
        self.feed_forward = make_feed_forward(mlp, width, hidden, dropout, init_std)
        self.scale_2 = None if layer_scale is None else LayerScale(width, layer_scale)

    def forward(
        self,
        tokens: Float[Tensor, "total width"],
        survival: Float[Tensor, "2 total 1"] | None = None,
        *,
        setting: Setting,
    ) -> Float[Tensor, "total width"]:
        """Apply both branches.

        Args:
            tokens: packed.
            survival: factors of drop path for the two branches of each token's sequence.
            setting: how tokens see each other.
        """
        normed = self.norm_1(tokens) if self.norm_first else tokens
        branch = self.attention(normed, setting=setting)
        branch = branch if self.scale_1 is None else self.scale_1(branch)
        tokens = tokens + (branch if survival is None else branch * survival[0])
        normed = self.norm_2(tokens) if self.norm_first else self.norm_1(tokens)
        branch = self.feed_forward(normed)
        branch = branch if self.scale_2 is None else self.scale_2(branch)
        branch = branch if survival is None else branch * survival[1]
        out: Tensor = tokens + branch if self.norm_first else self.norm_2(normed + branch)
        return out
