import json
import pickle
import struct
from pathlib import Path

import pytest
import xxhash

from ssl_scale.data.index import Dataset, read_dataset, read_shard_index
from ssl_scale.data.index_file import VERSION, Seal, Shard, ShardTable, write_index
from ssl_scale.errors import DataError
from tests.data.shards import digit_samples, write_folder

SHARDS = [
    Shard("a.tar", 7, 1 << 40, "0" * 31 + "1"),
    Shard("größer.tar", 2**32 - 1, 3, "f" * 32),
]


def test_a_table_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "dataset.index"
    seal = write_index(path, SHARDS, [b"first", b""])
    table = ShardTable(path, seal)
    assert list(table) == SHARDS and table[-1] == SHARDS[1] and table[:1] == (SHARDS[0],)
    assert [table.block(0), table.block(1)] == [b"first", b""]
    assert table.total_bytes == (1 << 40) + 3 and table.total_samples == 2**32 + 6
    copy = pickle.loads(pickle.dumps(table))  # noqa: S301 - our own bytes
    assert list(copy) == SHARDS and copy.fingerprint == table.fingerprint
    with pytest.raises(IndexError):
        table[2]


def test_the_fingerprint_tells_sizes_and_contents(tmp_path: Path) -> None:
    def fingerprint(*shards: Shard) -> str:
        return ShardTable(path, write_index(path, shards, [b""] * len(shards))).fingerprint

    path = tmp_path / "dataset.index"
    one, two = SHARDS
    renamed = Shard("b.tar", one.samples, one.bytes, one.xxh3)
    larger = Shard(one.name, one.samples + 1, one.bytes, one.xxh3)
    other = Shard(one.name, one.samples, one.bytes, two.xxh3)
    assert fingerprint(one, two) == fingerprint(renamed, two)
    assert len({fingerprint(*s) for s in ([one, two], [two, one], [larger, two], [other])}) == 4


def reseal(path: Path, head: bytes) -> Seal:
    path.write_bytes(head)
    return Seal(len(head), len(head), xxhash.xxh3_128_hexdigest(head))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (struct.pack("<8sIIQ", b"PAR1    ", 1, 5, 1), "is of the form b'PAR1"),
        (struct.pack("<8sIIQ", b"sslindex", VERSION + 1, 5, 1), f"version {VERSION + 1}"),
        (struct.pack("<8sIIQ", b"sslindex", VERSION, 5, 2**60), f"a head for {2**60} shards"),
        (struct.pack("<8sIIQ", b"sslindex", VERSION, 0, 1), "names of 0 bytes"),
        (struct.pack("<8sIIQ", b"sslindex", VERSION, 5, 0), "a head for 0 shards"),
        (b"short", "5 of them its head"),
    ],
)
def test_a_hostile_head_is_refused(tmp_path: Path, head: bytes, message: str) -> None:
    path = tmp_path / "dataset.index"
    with pytest.raises(DataError, match=rf"{message}.*; run `ssl-data index {tmp_path}`"):
        ShardTable(path, reseal(path, head))


@pytest.mark.parametrize("name", ["../x.tar", "..", "/x", "a\0b"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "dataset.index"
    table = ShardTable(path, write_index(path, [Shard(name, 1, 1, "0" * 32)], [b""]))
    with pytest.raises(DataError, match="where a plain file name must stand"):
        table.name(0)


def test_a_shard_without_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dataset.index"
    table = ShardTable(path, write_index(path, [Shard("a.tar", 0, 1, "0" * 32)], [b""]))
    with pytest.raises(DataError, match="a shard without samples"):
        table.total_samples  # noqa: B018


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at most 255 bytes long, but one has 256"):
        write_index(tmp_path / "i", [Shard("x" * 256, 1, 1, "0" * 32)], [b""])


def test_a_block_outside_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dataset.index"
    seal = write_index(path, SHARDS, [b"first", b"second"])
    head = bytearray(path.read_bytes()[: seal.head_bytes])
    for place, end in ((1, seal.bytes + 1), (1, 3), (1, 2**64 - 1)):
        struct.pack_into("<Q", head, 24 + 8 * place, end)
        table = ShardTable(path, reseal(path, bytes(head)))
        with pytest.raises(DataError, match=r"places the block of a\.tar at"):
            table.block(0)


@pytest.fixture
def digits(tmp_path: Path) -> Dataset:
    return write_folder(tmp_path / "digits", [digit_samples(3), digit_samples(2)])


def test_every_damaged_byte_of_an_index_is_noticed(digits: Dataset) -> None:
    path = digits.folder / "dataset.index"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"dataset\.index: must .*; run `ssl-data index"):
            spoilt = read_dataset(digits.folder)
            for shard in range(2):
                read_shard_index(spoilt, shard, ["png"])


def test_a_reader_goes_on_with_the_index_that_it_opened(digits: Dataset) -> None:
    before = digits.fingerprint
    write_folder(digits.folder, [digit_samples(5), digit_samples(2)])
    assert len(read_shard_index(digits, 0, ["png"])) == 3
    assert read_dataset(digits.folder).fingerprint != before


def test_an_index_of_another_time_is_refused(digits: Dataset) -> None:
    about = (digits.folder / "dataset.json").read_text()
    write_folder(digits.folder, [digit_samples(5), digit_samples(2)])
    (digits.folder / "dataset.json").write_text(about)
    assert json.loads(about)["num_samples"] == 5
    with pytest.raises(DataError, match=r"must be the index that dataset\.json was written for"):
        read_dataset(digits.folder)
