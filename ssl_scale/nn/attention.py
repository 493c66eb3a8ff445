"""Multi-head self-attention on packed tokens."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ssl_scale.nn.attend import attend
from ssl_scale.nn.linear import Linear
from ssl_scale.nn.norm import Norm, make_norm
from ssl_scale.nn.setting import Setting


class Attention(nn.Module):
    """Multi-head self-attention with query, key and value from one matrix.

    Papers: Attention Is All You Need, arXiv 1706.03762, section 3.2; QK-norm: Scaling Vision
    Transformers to 22 Billion Parameters, arXiv 2302.05442, section 2.

    Differs: no dropout on the attention map (BERT has it), since not every kernel offers it.

    Args:
        width: features of a token.
        num_heads: heads; they share the width.
        qk_norm: whether queries and keys are normed, head by head.
        norm: kind of that norm.
        norm_eps: its epsilon.
        dropout: probability of zeroing an output.
        init_std: see `Linear`.

    Raises:
        ValueError: the width is no multiple of the number of heads.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        qk_norm: bool = False,
        norm: Norm = "layer",
        norm_eps: float = 1e-6,
        dropout: float = 0.0,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width must be a multiple of num_heads={num_heads}, but is {width}")
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv = Linear(width, 3 * width, init_std=init_std, fused=3)
        self.out = Linear(width, width, init_std=init_std)
        head_width = width // num_heads
        self.query_norm = make_norm(norm, head_width, norm_eps) if qk_norm else None
        self.key_norm = make_norm(norm, head_width, norm_eps) if qk_norm else None

    def forward(
        self, tokens: Float[Tensor, "total width"], *, setting: Setting
    ) -> Float[Tensor, "total width"]:
        """Mix the tokens of each sequence."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if setting.rotation is not None:
            query, key = setting.rotation(query), setting.rotation(key)
        # Norm and rotation compute in fp32 under mixed precision; kernels want one type.
        query, key = query.to(value.dtype), key.to(value.dtype)
        mixed = attend(query, key, value, setting.packing, setting.attend)
        out: Tensor = self.out(mixed.flatten(-2))
        return F.dropout(out, self.dropout, self.training) if self.dropout else out
