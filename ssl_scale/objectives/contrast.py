"""Softmax contrast, the one formula that NT-Xent and InfoNCE share."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def contrast(
    queries: Float[Tensor, "rows width"],
    candidates: Float[Tensor, "columns width"],
    match: Int[Tensor, " rows"],
    allowed: Bool[Tensor, "rows columns"],
    scale: float | Float[Tensor, ""],
) -> tuple[Float[Tensor, " rows"], Bool[Tensor, " rows"]]:
    """Cross-entropy of finding each query's match among the candidates allowed to it.

    ``-log(exp(s q.k+) / sum_k exp(s q.k))``; the match must be allowed.

    Args:
        queries: rows of unit length.
        candidates: rows of unit length.
        match: place of each query's match among the candidates.
        allowed: which candidates each query is compared with.
        scale: factor of the logits, 1 / temperature.

    Returns:
        The loss of each query, and whether its match ranks first.
    """
    logits = (scale * queries @ candidates.T).masked_fill(~allowed, -torch.inf)
    positive = logits.gather(1, match[:, None])[:, 0]
    hits = (logits.detach() <= positive.detach()[:, None]).all(1)
    return logits.logsumexp(1) - positive, hits
