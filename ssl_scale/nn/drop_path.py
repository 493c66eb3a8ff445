"""Stochastic depth whose draws belong to the sample."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_scale.rng import Draw


def survival(draw: Draw, rate: float, depth: int) -> Float[Tensor, "sequences branches"]:
    """Factors of the residual branches: 0 if dropped, else one over the chance to survive.

    Paper: Deep Networks with Stochastic Depth, arXiv 1603.09382, section 3: the rate rises linearly
    from 0 in the first block to `rate` in the last one.

    Args:
        draw: randomness of each sequence; the same sequence drops the same branches in any batch.
        rate: chance of dropping a branch of the last block.
        depth: number of blocks; each has two branches, attention first.
    """
    rates = torch.linspace(0, rate, depth, device=draw.seeds.device).repeat_interleave(2)
    if depth == 1:
        rates = torch.full_like(rates, rate)
    kept = draw.uniform("drop_path", 2 * depth) >= rates
    return kept / (1 - rates)
