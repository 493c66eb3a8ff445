"""How many directions features use."""

import numpy as np
from jaxtyping import Float


def rankme(features: Float[np.ndarray, "samples width"], epsilon: float = 1e-7) -> float:
    """The effective rank of features: the exponential of the entropy of their singular values.

    Paper: RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
    Representations by Their Rank, arXiv 2210.02885, equations 1 and 2.

    Differs: the paper leaves features that are all zero undefined; here their rank is 1.

    Args:
        features: one row a sample, not centred; the paper uses 25,600 samples, and fewer than the
            width bound the rank.
        epsilon: added to each singular value's share.

    Returns:
        Between 1 and the smaller of both sizes.
    """
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    total = values.sum()
    if total == 0:
        return 1.0
    shares = values / total + epsilon
    return float(np.exp(-(shares * np.log(shares)).sum()))
