"""Tiny data sets for tests: real tar shards with real indexes, written by the standard library."""

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from ssl_scale.data.index import Dataset, describe_shard, write_dataset
from ssl_scale.data.index_block import encode_block
from ssl_scale.data.member_checks import add_checks
from ssl_scale.data.samples import ShardIndex, collect_samples
from ssl_scale.data.tar import read_members

Sample = Mapping[str, bytes]


def write_tar(
    path: Path, samples: Iterable[tuple[str, Sample]], format: int = tarfile.PAX_FORMAT
) -> Path:
    """A shard with a member KEY.EXTENSION for each entry of each sample."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for key, members in samples:
            for extension, content in members.items():
                about = tarfile.TarInfo(f"{key}.{extension}")
                about.size = len(content)
                archive.addfile(about, io.BytesIO(content))
    return path


def index_shard(path: Path) -> ShardIndex:
    """The samples of a shard, without checksums."""
    return collect_samples(path, read_members(path))


def write_folder(folder: Path, shards: Sequence[Sequence[tuple[str, Sample]]]) -> Dataset:
    """An indexed data set with these shards."""
    entries, blocks, fields = [], [], {}
    for number, samples in enumerate(shards):
        path = write_tar(folder / f"shard-{number:06d}.tar", samples)
        index = add_checks(path, index_shard(path))
        entries.append(describe_shard(path, index))
        blocks.append(encode_block(index))
        for name, count in index.counts().items():
            fields[name] = fields.get(name, 0) + count
    return write_dataset(folder, folder.name, entries, blocks, fields)


def write_numbers(folder: Path, sizes: Sequence[int], first: int = 0) -> Dataset:
    """Samples whose only field ``n`` is their number; shard i holds ``sizes[i]`` of them."""
    starts = np.cumsum([first, *sizes])
    return write_folder(
        folder,
        [
            [(f"{folder.name}-{n:05d}", {"n": str(n).encode()}) for n in range(start, start + size)]
            for start, size in zip(starts, sizes, strict=False)
        ],
    )


def png(pixels: np.ndarray) -> bytes:
    """An array ``[height, width(, channels)]`` of bytes as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def digit_samples(count: int) -> list[tuple[str, dict[str, bytes]]]:
    """Handwritten digits with label and caption."""
    digits = load_digits()
    return [
        (
            f"digit-{number:04d}",
            {
                "png": png((image * 15.9).astype(np.uint8)),
                "cls": str(label).encode(),
                "txt": f"a scan of the digit {label}".encode(),
            },
        )
        for number, (image, label) in enumerate(
            zip(digits.images[:count], digits.target[:count].tolist(), strict=True)
        )
    ]
