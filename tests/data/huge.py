"""A data set of a million shards in a few megabytes of disk: the index is sparse, shards are links.

Its head is whole; blocks and shards exist where a run reads. The shards are three real archives
under a million names: sizes differ, so that nothing can be found by mere division.
"""

import gc
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import xxhash

from ssl_scale.data.decoding import FieldDecoder
from ssl_scale.data.index import DATASET_FILE, INDEX_FILE, VERSION, describe_shard
from ssl_scale.data.index_block import encode_block
from ssl_scale.data.index_file import Seal, Shard, encode_head, head_bytes
from ssl_scale.data.member_checks import add_checks
from ssl_scale.data.source import Source
from tests.data.shards import index_shard, write_numbers

SHARDS, SAMPLES = 1_000_000, 1_000_000_000
SIZES = (900, 1000, 1100)
FIELDS = ("cls", "jpg", "txt")
_LOOKED_AT = 1000  # shards that opening looks at


@dataclass(frozen=True)
class HugeData:
    """The data set before it is read from.

    Args:
        folder: where it lies.
        templates: the real archives, by their sizes.
        blocks: their blocks.
        kinds: which of them each shard is.
        starts: where each shard's block belongs.
    """

    folder: Path
    templates: list[Shard]
    blocks: list[bytes]
    kinds: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    starts: "np.ndarray[tuple[int], np.dtype[np.int64]]"

    def make_readable(self, shards: "set[int]") -> None:
        """Put the blocks and archives of some shards where they belong."""
        with (self.folder / INDEX_FILE).open("r+b") as index:
            for shard in shards:
                index.seek(self.starts[shard])
                index.write(self.blocks[self.kinds[shard]])
                self._link(shard)

    def _link(self, shard: int) -> None:
        path = self.folder / _name(shard)
        if not path.exists():
            os.link(self.folder / self.templates[self.kinds[shard]].name, path)


def write_huge(folder: Path) -> HugeData:
    """Write it."""
    folder.mkdir()
    templates, blocks = [], []
    for size in SIZES:
        path = folder / f"template-{size}.tar"
        _write_template(path, size)
        index = add_checks(path, index_shard(path))
        templates.append(describe_shard(path, index))
        blocks.append(encode_block(index))
    third = SHARDS // 3
    kinds = np.random.default_rng(0).permutation(
        np.repeat([0, 2, 1], [third, third, SHARDS - 2 * third])
    )
    lengths = np.array([len(block) for block in blocks])[kinds]
    stride = len(_name(0))
    starts = head_bytes(SHARDS, stride) + np.concatenate(([0], np.cumsum(lengths)))
    head = encode_head(
        stride,
        starts,
        np.array([shard.bytes for shard in templates])[kinds],
        np.array([bytes.fromhex(shard.xxh3) for shard in templates], dtype="V16")[kinds],
        np.array(SIZES)[kinds],
        [_name(shard).encode() for shard in range(SHARDS)],
    )
    with (folder / INDEX_FILE).open("wb") as file:
        file.write(head)
        file.truncate(int(starts[-1]))
    seal = Seal(int(starts[-1]), len(head), xxhash.xxh3_128_hexdigest(head))
    about = {
        "version": VERSION, "name": "huge", "num_shards": SHARDS, "num_samples": SAMPLES,
        "fields": dict.fromkeys(FIELDS, SAMPLES), "generation": 0, "index": asdict(seal),
    }  # fmt: skip
    (folder / DATASET_FILE).write_text(json.dumps(about))
    made = HugeData(folder, templates, blocks, kinds, starts)
    for shard in range(_LOOKED_AT):
        made._link(shard)
    return made


def prepare_batches(huge: HugeData, starts: Sequence[int], batch: int) -> None:
    """Make readable what batches of `read_first_batch` at these positions read."""
    source = open_source(huge.folder)
    positions = np.concatenate([np.arange(start, start + batch) for start in starts])
    huge.make_readable({ref.shard for ref in source.locate_all(positions)})


def open_source(folder: Path) -> Source:
    """With three fields, left as bytes."""
    return Source("huge", folder, {name: Raw(name) for name in FIELDS}, seed=1)


class Raw(FieldDecoder):
    """A member as it is."""

    def decode(self, member: bytes, extension: str) -> bytes:
        """Its bytes."""
        return member

    def missing(self) -> bytes:
        """Nothing."""
        return b""

    def collate(self, values: Sequence[bytes]) -> torch.Tensor:
        """Their lengths."""
        return torch.tensor([len(value) for value in values])


@dataclass(frozen=True)
class Measured:
    """What opening and reading a first batch cost a fresh process.

    Args:
        seconds: from nothing open to the last byte.
        private_mib: memory of its own that it took.
        shared_mib: memory that all processes of a node share.
        bytes: of the samples read.
    """

    seconds: float
    private_mib: float
    shared_mib: float
    bytes: int


def measure_first_batch(folder: Path, start: int, batch: int) -> Measured:
    """Open and read in a process of its own."""
    call = f"print_first_batch({str(folder)!r}, {start}, {batch})"
    code = f"from tests.data.huge import print_first_batch; {call}"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def print_first_batch(folder: str, start: int, batch: int) -> None:
    """The process's part; memory is what grew once everything was imported."""
    with tempfile.TemporaryDirectory() as name:
        write_numbers(Path(name) / "tiny", [3, 4])
        tiny = Source("tiny", Path(name) / "tiny", {"n": Raw("n")})
        tiny.read(tiny.locate_all(np.arange(7))[0])
    gc.collect()
    private, shared = _memory_mib()
    started = time.perf_counter()
    source = open_source(Path(folder))
    samples = [source.read(ref) for ref in source.locate_all(np.arange(start, start + batch))]
    seconds = time.perf_counter() - started
    size = sum(len(sample[field]) for sample in samples for field in FIELDS)
    gc.collect()
    now_private, now_shared = _memory_mib()
    measured = Measured(seconds, now_private - private, now_shared - shared, size)
    print(json.dumps(asdict(measured)))


def _memory_mib() -> tuple[float, float]:
    """Resident memory of this process alone, and of files that it maps."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    return kib["RssAnon"] / 1024, kib["RssFile"] / 1024


def _name(shard: int) -> str:
    return f"shard-{shard:06d}.tar"


def _write_template(path: Path, samples: int) -> None:
    """Web pictures by their lengths, but short ones: 16-bit lengths cost the same."""
    rng = np.random.default_rng(samples)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for number in range(samples):
            lengths = {
                "cls": 1,
                "jpg": int(rng.integers(300, 2000)),
                "txt": int(rng.integers(20, 300)),
            }
            for extension, length in lengths.items():
                about = tarfile.TarInfo(f"{number:09d}.{extension}")
                about.size = length
                archive.addfile(about, io.BytesIO(rng.bytes(length)))
