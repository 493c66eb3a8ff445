"""A source: a data set on disk, in an order, with fields to decode.

Three lines read it from Python, without a recipe:

    from ssl_scale.data.image_field import ImageField
    from ssl_scale.data.source import Source
    source = Source("pictures", "shards/", {"image": ImageField("jpg", size_px=224)})

Then ``source.read(source.locate(position))`` is a sample, for any position of a run: what comes
after an epoch's end is the next epoch.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import xxhash

from ssl_scale.data.decoding import FieldDecoder, UndecodableError
from ssl_scale.data.index import Dataset, read_dataset
from ssl_scale.data.lookahead import Lookahead
from ssl_scale.data.node_cache import NodeCache
from ssl_scale.data.open_shard import Members, OpenShard
from ssl_scale.data.order import Order, StoredOrder
from ssl_scale.data.read_ahead import READ_AHEAD
from ssl_scale.data.seeds import Whole, combine, hash_names, sample_seeds
from ssl_scale.errors import DataError
from ssl_scale.rng import hash_name

Sample: TypeAlias = dict[str, Any]


class SampleRef(NamedTuple):
    """One sample of a run.

    Attributes:
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
        checksums: whether each member that is read is compared with what was indexed.

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
        checksums: bool = True,
    ) -> None:
        self.name, self.fields, self.seed = name, dict(fields), seed
        self.checksums = checksums
        self.dataset: Dataset = read_dataset(data, cache)
        for field, decoder in self.fields.items():
            self._check_field(field, decoder)
        self._extensions = {name: field.extensions for name, field in self.fields.items()}
        sizes = self.dataset.sizes
        # Keyed by name: two sources over one data set do not run side by side.
        key = int(combine(seed, hash_name(name)).view(np.int64)[0])
        self.order = Order(sizes, key, streams, window) if shuffle else StoredOrder(sizes)
        self._lookahead = Lookahead(self.order)
        self._shards: OrderedDict[int, OpenShard] = OrderedDict()
        # What a stream reads in at a time: shards under its window, and one at each of its ends.
        under_window = window * len(self.dataset.shards) // len(self.order)
        self._most_open = streams * (under_window + 2) + 2

    def __len__(self) -> int:
        """Samples in an epoch."""
        return len(self.order)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": OrderedDict()}

    @cached_property
    def fingerprint(self) -> str:
        """A hash of contents and order: a run that resumes with another one sees other samples."""
        order = [getattr(self.order, name, None) for name in ("seed", "streams", "window")]
        return xxhash.xxh3_128_hexdigest(f"{self.dataset.fingerprint} {order}".encode())

    def locate_all(self, positions: Whole) -> list[SampleRef]:
        """The samples at positions of the run."""
        place = self._lookahead.locate(positions)
        if self.dataset.cache is not None and len(positions) > 1:
            self._read_ahead(self.dataset.cache, positions, place.shard)
        columns = positions, place.epoch, place.shard, place.row
        return list(
            map(SampleRef._make, zip(*(column.tolist() for column in columns), strict=True))
        )

    def _read_ahead(self, cache: NodeCache, positions: Whole, shards: Whole) -> None:
        """Ask for the shards of these samples, then for those that their streams enter next."""
        of_a_shard = -(-len(self) // len(self.dataset.shards))
        ahead = of_a_shard * self.order.streams
        later = self.order.locate(positions + ahead).shard
        wanted = dict.fromkeys([*shards.tolist(), *later.tolist()])
        READ_AHEAD.want(cache, map(self.dataset.remote_file, wanted))

    def locate(self, position: int) -> SampleRef:
        """The sample at a position of the run."""
        return self.locate_all(np.array([position], dtype=np.int64))[0]

    def key(self, ref: SampleRef) -> str:
        """A sample's name in its data set."""
        return self.keys([ref])[0]

    def keys(self, refs: Iterable[SampleRef]) -> list[str]:
        """The names of samples."""
        return [self._open(ref.shard).keys[ref.row] for ref in refs]

    def seeds(self, epochs: Sequence[int], keys: Sequence[str]) -> Whole:
        """Seeds of samples in epochs: pure in (run seed, epoch, data set, key)."""
        prefix = f"{self.dataset.name}/"
        hashes = hash_names([prefix + key for key in keys])
        return sample_seeds(self.seed, np.array(epochs, dtype=np.int64), hashes)

    def fetch(self, ref: SampleRef) -> Members:
        """The bytes and extension of each field; None where the sample lacks it.

        Raises:
            DataError: they cannot be read, or are not those that were indexed.
        """
        return self.fetch_some([ref], 0)[0]

    def fetch_some(self, refs: Sequence[SampleRef], start: int) -> list[Members]:
        """The same of one of the samples, and of those after it if they stand next to each other.

        Args:
            refs: samples.
            start: which one of them comes first.
        """
        _, _, shard, row = refs[start]
        end = start + 1
        while end < len(refs):
            ref = refs[end]
            if ref.row != row + end - start or ref.shard != shard:
                break
            end += 1
        return self._open(shard).fetch(row, end - start)

    def decode(self, ref: SampleRef, members: Members) -> Sample:
        """The fields' values, with the sample's key and shard.

        Raises:
            UndecodableError: a member is not what its field must be; says which and where.
        """
        sample: Sample = {"__key__": self.key(ref), "__url__": self._open(ref.shard).location}
        for field, found in members.items():
            try:
                sample[field] = None if found is None else self.fields[field].decode(*found)
            except UndecodableError as error:
                raise self.located(error, ref, field) from error
        return sample

    def located(self, error: UndecodableError, ref: SampleRef, field: str) -> UndecodableError:
        """An error of a sample's field that says where it stands."""
        return UndecodableError(
            f"source {self.name!r}: {self._open(ref.shard).location}: sample {self.key(ref)!r}: "
            f"field {field!r} {error}"
        )

    def read(self, ref: SampleRef) -> Sample:
        """A sample: field -> value, None where it lacks the field."""
        return self.decode(ref, self.fetch(ref))

    def _open(self, number: int) -> OpenShard:
        if number in self._shards:
            self._shards.move_to_end(number)
            return self._shards[number]
        opened = OpenShard(self.dataset, number, self._extensions, self.checksums)
        self._shards[number] = opened
        if len(self._shards) > self._most_open:
            self._shards.popitem(last=False)
        return opened

    def _check_field(self, field: str, decoder: FieldDecoder) -> None:
        present = self.dataset.fields
        if not any(present.get(extension, 0) for extension in decoder.extensions):
            wanted = " or ".join(f".{name}" for name in decoder.extensions)
            found = ", ".join(f".{name}" for name in sorted(present)) or "nothing"
            raise DataError(
                f"{self.dataset.address or self.dataset.folder}: source {self.name!r} must have "
                f"field {field!r} ({wanted}), but its shards hold only {found}; name one of these "
                "as the field's extension, or leave the field out of the source"
            )
