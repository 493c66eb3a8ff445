"""What every contestant of the loader benchmark does with a sample and with a batch.

It needs nothing of `ssl_scale`, so that the environment of the peers can run it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
import torch
from torch import Tensor

BATCH = 64


class Decoded(NamedTuple):
    """A sample: picture ``[px, px, 3]``, caption ``[bytes]`` in UTF-8, class."""

    image: np.ndarray
    caption: np.ndarray
    label: int


class Collated(NamedTuple):
    """A batch; captions are padded with zeros."""

    image: Tensor
    caption: Tensor
    lengths: Tensor
    label: Tensor


def decode_caption(member: bytes) -> np.ndarray:
    """A caption's bytes, once they are known to be text."""
    member.decode()
    return np.frombuffer(member, np.uint8)


def decode_dict(sample: dict[str, Any]) -> Decoded:
    """A sample's values, from its members by extension."""
    image = simplejpeg.decode_jpeg(sample["jpg"])
    return Decoded(image, decode_caption(sample["txt"]), int(sample["cls"]))


def collate(samples: Sequence[Decoded]) -> Collated:
    """A batch of samples."""
    return collate_rest(samples, torch.from_numpy(np.stack([sample.image for sample in samples])))


def collate_rest(samples: Sequence[Decoded], images: Tensor) -> Collated:
    """A batch of samples whose pictures are one already."""
    lengths = [len(sample.caption) for sample in samples]
    captions = np.zeros((len(samples), max(lengths)), np.uint8)
    for row, sample in zip(captions, samples, strict=True):
        row[: len(sample.caption)] = sample.caption
    return Collated(
        images,
        torch.from_numpy(captions),
        torch.tensor(lengths),
        torch.tensor([sample.label for sample in samples]),
    )


def check(batches: Iterator[Collated]) -> tuple[int, ...]:
    """Samples and sums of all that a pass brings: equal for all contestants."""
    sums = np.zeros(5, dtype=np.int64)
    for batch in batches:
        values = batch.image, batch.caption, batch.lengths, batch.label
        sums += [len(batch.label), *(int(value.sum(dtype=torch.int64)) for value in values)]
    return tuple(sums.tolist())
