"""Comparing rows of features."""

import numpy as np
from jaxtyping import Float


def unit_rows(features: Float[np.ndarray, "n width"]) -> Float[np.ndarray, "n width"]:
    """Rows of length 1 in float64; rows of zeros stay."""
    rows = features.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths == 0, 1, lengths)
