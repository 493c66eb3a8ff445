"""A source: a data set on disk, in an order, with fields to decode.

Three lines read it from Python, without a recipe:

    from ssl_scale.data.image_field import ImageField
    from ssl_scale.data.source import Source
    source = Source("pictures", "shards/", {"image": ImageField("jpg", size_px=224)})

Then ``source.read(source.locate(position))`` is a sample, for any position of a run: what comes
after an epoch's end is the next epoch.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import xxhash

from ssl_scale.data.decoding import FieldDecoder, UndecodableError
from ssl_scale.data.index import Dataset, ShardIndex, read_dataset, read_shard_index
from ssl_scale.data.node_cache import NodeCache
from ssl_scale.data.order import Order, StoredOrder
from ssl_scale.data.reader import SHARD_READER
from ssl_scale.data.seeds import Whole, combine, sample_seeds
from ssl_scale.errors import DataError
from ssl_scale.rng import hash_name

Sample: TypeAlias = dict[str, Any]
Members: TypeAlias = dict[str, tuple[bytes, str] | None]


@dataclass(frozen=True)
class SampleRef:
    """One sample of a run.

    Args:
        position: in the run's order of this source.
        epoch: which pass over the data set.
        shard: number of its shard.
        row: place in the shard.
    """

    position: int
    epoch: int
    shard: int
    row: int


class Source:
    """Samples of one data set in the order of a run.

    Args:
        name: what messages and batches call it.
        data: the data set's folder or address.
        fields: field -> how it is decoded.
        seed: of the run.
        streams: see `Order`.
        window: see `Order`.
        shuffle: whether epochs are shuffled, rather than read as they are stored.
        cache: what an address is read through; see `read_dataset`.

    Raises:
        DataError: the data set is missing or damaged, or has no sample with one of the fields.
    """

    def __init__(
        self,
        name: str,
        data: str | Path,
        fields: Mapping[str, FieldDecoder],
        seed: int = 0,
        streams: int = 64,
        window: int = 4096,
        shuffle: bool = True,
        cache: NodeCache | None = None,
    ) -> None:
        self.name, self.fields, self.seed = name, dict(fields), seed
        self.dataset: Dataset = read_dataset(data, cache)
        for field, decoder in self.fields.items():
            self._check_field(field, decoder)
        self._extensions = tuple(
            dict.fromkeys(ext for decoder in self.fields.values() for ext in decoder.extensions)
        )
        sizes = self.dataset.sizes
        # Keyed by name: two sources over one data set do not run side by side.
        key = int(combine(seed, hash_name(name)).view(np.int64)[0])
        self.order = Order(sizes, key, streams, window) if shuffle else StoredOrder(sizes)
        self._indexes: OrderedDict[int, ShardIndex] = OrderedDict()
        # Each stream reads in one shard at a time, or in two where one ends.
        self._most_indexes = 2 * streams + 2

    def __len__(self) -> int:
        """Samples in an epoch."""
        return len(self.order)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_indexes": OrderedDict()}

    @cached_property
    def fingerprint(self) -> str:
        """A hash of contents and order: a run that resumes with another one sees other samples."""
        order = [getattr(self.order, name, None) for name in ("seed", "streams", "window")]
        return xxhash.xxh3_128_hexdigest(f"{self.dataset.fingerprint} {order}".encode())

    def locate_all(self, positions: Whole) -> list[SampleRef]:
        """The samples at positions of the run."""
        place = self.order.locate(positions)
        columns = (positions, place.epoch, place.shard, place.row)
        return [SampleRef(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]

    def locate(self, position: int) -> SampleRef:
        """The sample at a position of the run."""
        return self.locate_all(np.array([position], dtype=np.int64))[0]

    def key(self, ref: SampleRef) -> str:
        """A sample's name in its data set."""
        return str(self._index(ref.shard).keys[ref.row])

    def seeds(self, epochs: Sequence[int], keys: Sequence[str]) -> Whole:
        """Seeds of samples in epochs: pure in (run seed, epoch, data set, key)."""
        hashes = [hash_name(f"{self.dataset.name}/{key}") for key in keys]
        return sample_seeds(
            self.seed, np.array(epochs, dtype=np.int64), np.array(hashes, dtype=np.int64)
        )

    def fetch(self, ref: SampleRef) -> Members:
        """The bytes and extension of each field; None where the sample lacks it."""
        index = self._index(ref.shard)
        path, shard = self.dataset.location(ref.shard), self.dataset.shards[ref.shard]
        members: Members = {}
        for field, decoder in self.fields.items():
            members[field] = None
            for extension in decoder.extensions:
                lengths = index.lengths.get(extension)
                if lengths is None or lengths[ref.row] < 0:
                    continue
                offset, length = int(index.offsets[extension][ref.row]), int(lengths[ref.row])
                content = SHARD_READER.read(
                    path, shard.bytes, shard.xxh3, offset, length, self.dataset.cache
                )
                members[field] = content, extension
                break
        return members

    def decode(self, ref: SampleRef, members: Members) -> Sample:
        """The fields' values, with the sample's key and shard.

        Raises:
            UndecodableError: a member is not what its field must be; says which and where.
        """
        sample: Sample = {"__key__": self.key(ref), "__url__": self.dataset.location(ref.shard)}
        for field, found in members.items():
            try:
                sample[field] = None if found is None else self.fields[field].decode(*found)
            except UndecodableError as error:
                raise UndecodableError(
                    f"source {self.name!r}: {sample['__url__']}: sample {sample['__key__']!r}: "
                    f"field {field!r} {error}"
                ) from error
        return sample

    def read(self, ref: SampleRef) -> Sample:
        """A sample: field -> value, None where it lacks the field."""
        return self.decode(ref, self.fetch(ref))

    def _index(self, shard: int) -> ShardIndex:
        if shard in self._indexes:
            self._indexes.move_to_end(shard)
            return self._indexes[shard]
        index = read_shard_index(self.dataset, shard, self._extensions)
        self._indexes[shard] = index
        if len(self._indexes) > self._most_indexes:
            self._indexes.popitem(last=False)
        return index

    def _check_field(self, field: str, decoder: FieldDecoder) -> None:
        present = self.dataset.fields
        if not any(present.get(extension, 0) for extension in decoder.extensions):
            wanted = " or ".join(f".{name}" for name in decoder.extensions)
            found = ", ".join(f".{name}" for name in sorted(present)) or "nothing"
            raise DataError(
                f"{self.dataset.folder}: source {self.name!r} must have field {field!r} "
                f"({wanted}), but its shards hold only {found}; name one of these as the field's "
                "extension, or leave the field out of the source"
            )
