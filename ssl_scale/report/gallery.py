"""The pictures of a report as plain arrays, kept in the run's folder next to its figures."""

import base64
import io
import math
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from ssl_scale.probes.similarity import unit_rows

GALLERY_NAME = "pictures.npz"


def _empty(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.zeros(shape, dtype)


@dataclass(frozen=True, eq=False)
class Gallery:
    """What is shown besides curves; parts that a run has no use for are empty.

    Args:
        step: optimizer step of the checkpoint.
        queries: held-out pictures.
        query_names: their captions or classes.
        neighbours: for each query its nearest pictures in feature space, nearest first.
        neighbour_names: their captions or classes.
        similarities: cosine similarity of each neighbour.
        query_labels: class of each query; -1 where unknown.
        neighbour_labels: class of each neighbour; -1 where unknown.
        originals: pictures as the masked objective was shown them.
        masked: the same with hidden patches greyed.
        predictions: the same with hidden patches as predicted.
        points: features in the plane.
        point_labels: class of each point.
        classes: the classes' names.
    """

    step: int = 0
    queries: UInt8[np.ndarray, "queries height width 3"] = field(
        default_factory=lambda: _empty(0, 1, 1, 3)
    )
    query_names: tuple[str, ...] = ()
    neighbours: UInt8[np.ndarray, "queries k height width 3"] = field(
        default_factory=lambda: _empty(0, 0, 1, 1, 3)
    )
    neighbour_names: tuple[tuple[str, ...], ...] = ()
    similarities: Float[np.ndarray, "queries k"] = field(
        default_factory=lambda: _empty(0, 0, dtype="float32")
    )
    query_labels: Int[np.ndarray, " queries"] = field(
        default_factory=lambda: _empty(0, dtype="int64")
    )
    neighbour_labels: Int[np.ndarray, "queries k"] = field(
        default_factory=lambda: _empty(0, 0, dtype="int64")
    )
    originals: UInt8[np.ndarray, "pictures height width 3"] = field(
        default_factory=lambda: _empty(0, 1, 1, 3)
    )
    masked: UInt8[np.ndarray, "pictures height width 3"] = field(
        default_factory=lambda: _empty(0, 1, 1, 3)
    )
    predictions: UInt8[np.ndarray, "pictures height width 3"] = field(
        default_factory=lambda: _empty(0, 1, 1, 3)
    )
    points: Float[np.ndarray, "points 2"] = field(
        default_factory=lambda: _empty(0, 2, dtype="float32")
    )
    point_labels: Int[np.ndarray, " points"] = field(
        default_factory=lambda: _empty(0, dtype="int64")
    )
    classes: tuple[str, ...] = ()

    def save(self, run_folder: Path) -> Path:
        """Write the arrays, whole or not at all."""
        path = Path(run_folder) / GALLERY_NAME
        draft = path.with_name(f".{GALLERY_NAME}.{os.getpid()}.tmp")
        with draft.open("wb") as file:
            arrays = {
                entry.name: np.asarray(
                    getattr(self, entry.name), dtype=np.str_ if entry.name in _TEXTS else None
                )
                for entry in fields(self)
            }
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        draft.replace(path)
        return path

    @classmethod
    def read(cls, run_folder: Path) -> "Gallery | None":
        """What `save` wrote, or None if nothing was."""
        path = Path(run_folder) / GALLERY_NAME
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as stored:
            return cls(
                step=int(stored["step"]),
                query_names=tuple(stored["query_names"].tolist()),
                neighbour_names=tuple(tuple(row) for row in stored["neighbour_names"].tolist()),
                classes=tuple(stored["classes"].tolist()),
                **{name: stored[name] for name in _ARRAYS},
            )


_ARRAYS = (
    "queries", "neighbours", "similarities", "query_labels", "neighbour_labels", "originals",
    "masked", "predictions", "points", "point_labels",
)  # fmt: skip
_TEXTS = ("query_names", "neighbour_names", "classes")


def to_data_uri(picture: UInt8[np.ndarray, "height width 3"]) -> str:
    """The picture as a PNG inside the address itself, so the page needs no other file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def to_pictures(
    fractions: Float[np.ndarray, "batch channels height width"],
) -> UInt8[np.ndarray, "batch height width 3"]:
    """Fractions of full brightness as 8-bit colour; one channel becomes grey, a fourth is cut."""
    channels = fractions[:, :3] if fractions.shape[1] >= 3 else fractions[:, :1].repeat(3, axis=1)
    scaled = np.clip(np.nan_to_num(channels) * 255, 0, 255)
    pictures: np.ndarray = scaled.round().astype(np.uint8).transpose(0, 2, 3, 1)
    return pictures


def paste_patches(
    patches: Float[np.ndarray, "batch places values"], rows: int, columns: int, channels: int
) -> Float[np.ndarray, "batch channels height width"]:
    """Put patches, each flattened as (channel, row, column), back into pictures."""
    batch, _, values = patches.shape
    side = math.isqrt(values // channels)
    tiles = patches.reshape(batch, rows, columns, channels, side, side)
    return tiles.transpose(0, 3, 1, 4, 2, 5).reshape(batch, channels, rows * side, columns * side)


def reconstruct(
    true: Float[np.ndarray, "batch places values"],
    predicted: Float[np.ndarray, "batch places values"],
    hidden: Bool[np.ndarray, "batch places"],
    is_normalized: bool,
) -> tuple[Float[np.ndarray, "batch places values"], Float[np.ndarray, "batch places values"]]:
    """What was shown of the pictures, and the pictures with hidden patches as predicted.

    A prediction of normalised patches has no brightness and contrast of its own; as in the
    authors' pictures it borrows those of the true patch.

    Args:
        true: the pictures' patches.
        predicted: the decoder's.
        hidden: which were hidden.
        is_normalized: whether the decoder speaks of normalised patches.
    """
    if is_normalized:
        spread = np.sqrt(true.var(-1, ddof=1, keepdims=True) + 1e-6)
        predicted = predicted * spread + true.mean(-1, keepdims=True)
    grey = np.full_like(true, true.mean())
    return (
        np.where(hidden[..., None], grey, true),
        np.where(hidden[..., None], predicted, true),
    )


def nearest(
    queries: Float[np.ndarray, "queries width"],
    pool: Float[np.ndarray, "pool width"],
    count: int,
) -> tuple[Int[np.ndarray, "queries count"], Float[np.ndarray, "queries count"]]:
    """The most similar rows of the pool, nearest first, and their cosine similarities.

    The pool's mean is subtracted first: what all features share would make everything alike.
    """
    mean = pool.mean(0)
    similarity = unit_rows(queries - mean) @ unit_rows(pool - mean).T
    places = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return places, np.take_along_axis(similarity, places, axis=1)


def to_plane(
    features: Float[np.ndarray, "samples width"],
) -> Float[np.ndarray, "samples 2"]:
    """A map on which near features stay near: t-SNE; of few samples the principal components."""
    features = features.astype(np.float64)
    if len(features) < 40:
        return PCA(2, random_state=0).fit_transform(features)  # type: ignore[no-any-return]
    size = min(50, *features.shape)
    reduced = PCA(size, random_state=0).fit_transform(features)
    tsne = TSNE(2, init="pca", perplexity=min(30, len(features) / 4), random_state=0)
    return tsne.fit_transform(reduced)  # type: ignore[no-any-return]
