"""The manifest: one row a sample, in the order of the shards."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .examine import COLUMNS
from .work import written_atomically

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("label", pa.int64()),
        pa.field("text_chars", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A sample in the manifest; ``facts`` as `examine` returns them."""

    key: str
    shard: str
    sha256: str
    size: int
    facts: Mapping[str, int]

    @classmethod
    def of(
        cls, key: str, shard: str, members: Mapping[str, bytes], facts: Mapping[str, int]
    ) -> "ManifestRow":
        """The row of a sample with these members."""
        size = sum(map(len, members.values()))
        return cls(key, shard, digest(members), size, facts)


def digest(members: Mapping[str, bytes]) -> str:
    """SHA-256 over a sample's members: each extension, length and content, by extension."""
    total = hashlib.sha256()
    for extension in sorted(members):
        total.update(f"{extension}\0{len(members[extension])}\0".encode())
        total.update(members[extension])
    return total.hexdigest()


def write_part(path: Path, rows: Sequence[ManifestRow]) -> None:
    """Write the rows of one shard."""
    columns = {
        "key": [row.key for row in rows],
        "shard": [row.shard for row in rows],
        "sha256": [row.sha256 for row in rows],
        "bytes": [row.size for row in rows],
        **{name: [row.facts.get(name) for row in rows] for name in COLUMNS},
    }
    pq.write_table(pa.table(columns, schema=SCHEMA), path, compression="zstd")


def join_parts(path: Path, parts: Iterable[Path], facts: Iterable[str]) -> None:
    """Write the manifest from the parts, one after the other.

    Args:
        path: where to; appears whole or not at all.
        parts: in the order of the shards.
        facts: those of `COLUMNS` that any sample has; the others are left out.
    """
    kept = set(facts)
    names = [name for name in SCHEMA.names if name not in COLUMNS or name in kept]
    schema = pa.schema([SCHEMA.field(name) for name in names])
    with (
        written_atomically(path) as handle,
        pq.ParquetWriter(handle, schema, compression="zstd") as writer,
    ):
        for part in parts:
            writer.write_table(pq.read_table(part, columns=names).cast(schema))
