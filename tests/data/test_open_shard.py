import os
from pathlib import Path

import pytest

from ssl_scale.data.open_shard import OpenShard
from ssl_scale.errors import DataError
from tests.data.shards import write_folder

SAMPLES = [
    ("a", {"a": b"first", "between": b"-" * 90_000, "z": b"last"}),
    ("b", {"a": b"near", "a2": b"not this", "z": b"by"}),
    ("c", {"between": b"-", "z": b"", "a2": b"second"}),
    ("d", {"between": b"-"}),
]
FIELDS = {"one": ("a", "a2"), "other": ("z",), "again": ("a",)}
READ = [
    {"one": (b"first", "a"), "other": (b"last", "z"), "again": (b"first", "a")},
    {"one": (b"near", "a"), "other": (b"by", "z"), "again": (b"near", "a")},
    {"one": (b"second", "a2"), "other": (b"", "z"), "again": None},
    {"one": None, "other": None, "again": None},
]


def note_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    real, lengths = os.pread, list[int]()

    def note(descriptor: int, length: int, offset: int) -> bytes:
        lengths.append(length)
        return real(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", note)
    return lengths


def test_members_are_those_of_each_fields_first_extension(tmp_path: Path) -> None:
    shard = OpenShard(write_folder(tmp_path / "d", [SAMPLES]), 0, FIELDS)
    assert [shard.fetch(row)[0] for row in range(4)] == READ
    assert list(shard.keys) == ["a", "b", "c", "d"]


def test_neighbours_are_read_at_once_and_what_is_far_apart_is_not_read_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = OpenShard(write_folder(tmp_path / "d", [SAMPLES]), 0, FIELDS)
    lengths = note_reads(monkeypatch)
    shard.fetch(0)
    assert lengths == [5, 4, 5]
    shard.fetch(1)
    assert len(lengths) == 4


def test_samples_next_to_each_other_are_read_at_once_as_far_as_it_pays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = ("far", {"n": b"5", "not read": b"-" * 5000})
    samples = [*((f"s{n}", {"n": b"%d" % n}) for n in range(5)), far, ("last", {"n": b"6"})]
    large = [(f"t{n}", {"n": b"%d" % n * 100_000}) for n in range(5)]
    shards = write_folder(tmp_path / "d", [samples, large, SAMPLES])
    small, big, mixed = (
        OpenShard(shards, number, fields)
        for number, fields in ((0, {"n": ("n",)}), (1, {"n": ("n",)}), (2, FIELDS))
    )
    lengths = note_reads(monkeypatch)
    assert [each["n"] for each in small.fetch(1, 3)] == [(b"1", "n"), (b"2", "n"), (b"3", "n")]
    assert lengths == [2 * 1024 + 1]
    assert [each["n"] for each in small.fetch(3, 4)] == [(b"3", "n"), (b"4", "n"), (b"5", "n")]
    assert len(small.fetch(6, 1)) == 1
    assert [len(big.fetch(row, 5 - row)) for row in range(5)] == [2, 2, 2, 2, 1]
    assert [mixed.fetch(row, 4 - row) for row in range(4)] == [
        READ[:1],
        READ[1:3],
        READ[2:3],
        READ[3:],
    ]


def test_changed_bytes_are_found_in_whatever_way_they_are_read(tmp_path: Path) -> None:
    dataset = write_folder(tmp_path / "d", [SAMPLES])
    content = dataset.path(0).read_bytes()
    dataset.path(0).write_bytes(content.replace(b"last", b"lost").replace(b"near", b"neat"))
    shard = OpenShard(dataset, 0, FIELDS)
    for row, key in enumerate("ab"):
        with pytest.raises(DataError, match=f"sample '{key}': the bytes of field '.*' must be"):
            shard.fetch(row, 2)
    assert shard.fetch(2) == READ[2:3]
    unchecked = OpenShard(dataset, 0, FIELDS, checksums=False)
    assert [unchecked.fetch(row)[0]["one"][0] for row in (0, 1)] == [b"first", b"neat"]


def test_a_shard_without_any_of_the_extensions_gives_nothing(tmp_path: Path) -> None:
    shard = OpenShard(write_folder(tmp_path / "d", [SAMPLES]), 0, {"none": ("jpg", "png")})
    assert [shard.fetch(row)[0] for row in range(4)] == [{"none": None}] * 4
