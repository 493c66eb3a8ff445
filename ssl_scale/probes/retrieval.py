"""Finding the caption of an image and the image of a caption."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from ssl_scale.probes.similarity import unit_rows

_ROWS_AT_ONCE = 1024  # of the table of similarities, to bound memory


def retrieval_scores(
    images: Float[np.ndarray, "samples width"],
    texts: Float[np.ndarray, "samples width"],
    captions: Int[np.ndarray, " samples"],
    ks: Sequence[int] = (1, 5),
) -> dict[str, float]:
    """Recall at k and mean rank, both ways.

    Several images may have equal captions; any of them is right.

    Args:
        images: features in the space that images and texts share.
        texts: features of the images' captions, row by row.
        captions: equal numbers for equal captions.
        ks: how far down the right answer may be.

    Returns:
        ``image_to_text/recall@1`` and so on, and ``image_to_text/mean_rank``, which is best at 1.
    """
    images, texts = unit_rows(images), unit_rows(texts)
    figures: dict[str, float] = {}
    for name, queries, gallery in (
        ("image_to_text", images, texts),
        ("text_to_image", texts, images),
    ):
        ranks = np.concatenate(
            [
                ranks_of_right(
                    queries[start : start + _ROWS_AT_ONCE] @ gallery.T,
                    captions[start : start + _ROWS_AT_ONCE, None] == captions[None],
                )
                for start in range(0, len(queries), _ROWS_AT_ONCE)
            ]
        )
        figures |= {f"{name}/recall@{k}": float((ranks <= k).mean()) for k in ks}
        figures[f"{name}/mean_rank"] = float(ranks.mean())
    return figures


def ranks_of_right(
    similarity: Float[np.ndarray, "queries gallery"], right: Bool[np.ndarray, "queries gallery"]
) -> Int[np.ndarray, " queries"]:
    """Where the best right answer stands, from 1.

    Wrong answers that are equally near stand before it: features that do not tell things apart
    must not seem to find them.
    """
    best = np.where(right, similarity, -np.inf).max(1, keepdims=True)
    before: np.ndarray = ((similarity >= best) & ~right).sum(1)
    return 1 + before
