"""Token masks for masked language modelling: hide single tokens, most behind the mask vector."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_scale.masking.sampler import MaskSampler
from ssl_scale.part import Probability, Ratio, Whole
from ssl_scale.rng import Draw
from ssl_scale.types import Layout, Mask

MASK_VECTOR, OTHER_TOKEN, ITSELF = 0, 1, 2


class TokenMask(MaskSampler):
    """Hides a share of each sequence's tokens; a few of them show another token or themselves.

    Paper: BERT, arXiv 1810.04805, section 3.1, task 1, and appendix A.1.

    Args:
        ratio: share of a sequence's tokens hidden; at least one is.
        replace: share of the hidden tokens that become the mask vector.
        random: share of the hidden tokens that become another token; the rest stays.
        skip: tokens at the start of a sequence that are never hidden ([CLS]).
    """

    def __init__(
        self,
        ratio: Ratio = 0.15,
        replace: Probability = 0.8,
        random: Probability = 0.1,
        skip: Whole = 1,
    ) -> None:
        if replace + random > 1:
            raise ValueError(f"replace + random must be at most 1, but is {replace + random}")
        self.ratio, self.replace, self.random, self.skip = ratio, replace, random, skip

    def __call__(self, layout: Layout, draw: Draw) -> Mask:
        """A mask for every crop; tokens that are not valid are never hidden."""
        crops, tokens = layout.valid.shape[1:]
        eligible = layout.valid.clone()
        eligible[..., : self.skip] = False
        count = eligible.sum(-1, keepdim=True)
        num_hidden = (count * self.ratio).round().clamp(min=1).minimum(count)
        order = each_place(draw, "order", crops, tokens).masked_fill(~eligible, 2.0)
        hidden = order.argsort(dim=-1, stable=True).argsort(dim=-1) < num_hidden
        lot = each_place(draw, "fill", crops, tokens)
        fill = torch.full_like(lot, ITSELF, dtype=torch.int8)
        fill[lot < self.replace + self.random] = OTHER_TOKEN
        fill[lot < self.replace] = MASK_VECTOR
        return Mask(hidden, "replace", fill)


def each_place(
    draw: Draw, name: str, crops: int, tokens: int
) -> Float[Tensor, "batch crops tokens"]:
    """Uniform numbers that do not depend on how far a batch pads its sequences."""
    return torch.stack(
        [draw.child(name, crop).uniform("place", tokens) for crop in range(crops)], 1
    )
