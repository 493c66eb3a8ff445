import os
from pathlib import Path

import pytest

from ssl_scale.data.open_shard import OpenShard
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


def test_members_are_those_of_each_fields_first_extension(tmp_path: Path) -> None:
    shard = OpenShard(write_folder(tmp_path / "d", [SAMPLES]), 0, FIELDS)
    assert [shard.fetch(row) for row in range(4)] == READ
    assert list(shard.keys) == ["a", "b", "c", "d"]


def test_neighbours_are_read_at_once_and_what_is_far_apart_is_not_read_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = OpenShard(write_folder(tmp_path / "d", [SAMPLES]), 0, FIELDS)
    real, lengths = os.pread, list[int]()

    def note(descriptor: int, length: int, offset: int) -> bytes:
        lengths.append(length)
        return real(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", note)
    shard.fetch(0)
    assert lengths == [5, 4, 5]
    shard.fetch(1)
    assert len(lengths) == 4


def test_a_shard_without_any_of_the_extensions_gives_nothing(tmp_path: Path) -> None:
    shard = OpenShard(write_folder(tmp_path / "d", [SAMPLES]), 0, {"none": ("jpg", "png")})
    assert [shard.fetch(row) for row in range(4)] == [{"none": None}] * 4
