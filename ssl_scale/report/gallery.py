"""The pictures of a report as plain arrays, kept in the run's folder next to its figures."""

import base64
import io
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

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
    "queries", "neighbours", "similarities", "originals", "masked", "predictions", "points",
    "point_labels",
)  # fmt: skip
_TEXTS = ("query_names", "neighbour_names", "classes")


def to_data_uri(picture: UInt8[np.ndarray, "height width 3"]) -> str:
    """The picture as a PNG inside the address itself, so the page needs no other file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def to_pictures(
    values: Float[np.ndarray, "batch channels height width"],
) -> UInt8[np.ndarray, "batch height width 3"]:
    """Pixels in [-1, 1] as 8-bit colour; one channel becomes grey, more than three are cut."""
    channels = values[:, :3] if values.shape[1] >= 3 else np.repeat(values[:, :1], 3, axis=1)
    scaled = np.clip((np.nan_to_num(channels) + 1) * 127.5, 0, 255)
    pictures: np.ndarray = scaled.round().astype(np.uint8).transpose(0, 2, 3, 1)
    return pictures
