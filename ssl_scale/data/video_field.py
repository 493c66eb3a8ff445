"""Films: a few frames of each, chosen by how many there are and by nothing else."""

from collections.abc import Sequence

import numpy as np

from ssl_scale.data.decoding import FixedField
from ssl_scale.data.film import import_av, open_film
from ssl_scale.data.pictures import Fit, Resize, squared
from ssl_scale.part import Count


class VideoField(FixedField):
    """Frames of a film (MP4, WebM, Matroska, AVI, MPEG, GIF), upright, square, RGB, in bytes.

    Differs: pixels are taken as square, whatever the film says of their aspect.

    Args:
        extension: of the members.
        num_frames: how many are taken; of a film with fewer some are repeated.
        size_px: height and width.
        every: 1 takes frames that follow each other, 2 every second one, from the middle of the
            film; null spreads them evenly over all of it.
        resize: the filter; all but ``nearest`` are free of aliasing.
        fit: ``crop`` keeps the shape and takes the middle square, ``squash`` takes all.
        max_pixels: a film whose frames claim more is bad: it may be a decompression bomb.

    Raises:
        SslScaleError: `av` is not installed.
    """

    def __init__(
        self,
        extension: str | Sequence[str],
        num_frames: Count,
        size_px: Count,
        every: Count | None = None,
        resize: Resize = "bilinear",
        fit: Fit = "crop",
        max_pixels: Count = 36_000_000,
    ) -> None:
        super().__init__(extension, (num_frames, size_px, size_px, 3), np.uint8)
        self.num_frames, self.size_px, self.every = num_frames, size_px, every
        self.resize, self.fit, self.max_pixels = resize, fit, max_pixels
        import_av()

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """``[..., num_frames, 3, size_px, size_px]``."""
        return values.swapaxes(-1, -2).swapaxes(-2, -3)

    def decode_into(self, place: np.ndarray, member: bytes, extension: str) -> None:
        """Fill ``[num_frames, size_px, size_px, 3]`` uint8."""
        with open_film(member, self.max_pixels) as film:
            chosen = choose_frames(len(film), self.num_frames, self.every)
            for row, frame in zip(place, film.frames(chosen), strict=True):
                row[...] = np.asarray(squared(frame, self.size_px, self.resize, self.fit))


def choose_frames(total: int, wanted: int, every: int | None) -> list[int]:
    """Numbers of the frames to take, ascending.

    Args:
        total: frames of the film.
        wanted: how many to take.
        every: how far apart, around the middle; the last one is repeated where the film ends.
            None takes the middles of `wanted` equal parts.
    """
    if every is None:
        return [(2 * n + 1) * total // (2 * wanted) for n in range(wanted)]
    first = max(0, (total - (wanted - 1) * every - 1) // 2)
    return [min(first + n * every, total - 1) for n in range(wanted)]
