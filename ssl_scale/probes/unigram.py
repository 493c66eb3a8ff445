"""The loss of guessing tokens by their frequency alone: what a masked-token model must beat."""

import numpy as np
from jaxtyping import Int


def unigram_cross_entropy(
    train: Int[np.ndarray, " train"], held_out: Int[np.ndarray, " held_out"], vocab_size: int
) -> float:
    """Cross-entropy, in nats a token, of the training tokens' frequencies on held-out tokens.

    One is added to every count, so that a token never seen costs much and not infinitely much.

    Args:
        train: token ids, of all texts together.
        held_out: token ids to predict.
        vocab_size: number of different ids.

    Raises:
        ValueError: an id is outside of the vocabulary, or nothing is held out.
    """
    if not len(held_out):
        raise ValueError("held_out must hold at least one token, but is empty")
    for name, tokens in (("train", train), ("held_out", held_out)):
        if len(tokens) and not (tokens.min() >= 0 and tokens.max() < vocab_size):
            raise ValueError(
                f"{name} tokens must be in [0, {vocab_size}), "
                f"but span [{tokens.min()}, {tokens.max()}]"
            )
    counts = np.bincount(train, minlength=vocab_size) + 1.0
    return float(-np.log(counts / counts.sum())[held_out].mean())
