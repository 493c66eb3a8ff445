import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ssl_scale.data.index import (
    collect_samples,
    index_path,
    index_shard,
    read_dataset,
    read_shard_index,
)
from ssl_scale.data.tar import Member
from ssl_scale.errors import DataError
from tests.data.shards import digit_samples, write_folder, write_tar


def test_an_index_finds_every_member_again(tmp_path: Path) -> None:
    samples = [
        ("a/one", {"png": b"picture", "txt": b"words"}),
        ("a/two", {"txt": b"", "seg.PNG": b"mask"}),
        ("b.x/three", {"png": b"another"}),
    ]
    dataset = write_folder(tmp_path / "data", [samples])
    index = read_shard_index(read_dataset(tmp_path / "data"), 0, ["png", "txt", "seg.png", "wav"])
    content = dataset.path(0).read_bytes()
    assert list(index.keys) == ["a/one", "a/two", "b.x/three"]
    assert set(index.offsets) == {"png", "txt", "seg.png"}
    for row, (_, members) in enumerate(samples):
        found = {
            name: content[int(offsets[row]) : int(offsets[row] + index.lengths[name][row])]
            for name, offsets in index.offsets.items()
            if index.lengths[name][row] >= 0
        }
        assert found == {name.lower(): value for name, value in members.items()}


def test_the_files_have_the_agreed_form(tmp_path: Path) -> None:
    dataset = write_folder(tmp_path / "digits", [digit_samples(5), digit_samples(3)])
    table = pq.read_table(index_path(dataset.path(1)))
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds == {"key": "string"} | {
        f"{name}.{part}": kind
        for name in ("png", "cls", "txt")
        for part, kind in (("offset", "int64"), ("length", "int32"))
    }
    assert set(table.schema.metadata) == {b"version", b"shard_bytes", b"shard_xxh3"}
    about = json.loads((tmp_path / "digits" / "dataset.json").read_text())
    assert about["version"] == 1
    assert about["name"] == "digits"
    assert about["num_samples"] == 8
    assert about["fields"] == {"png": 8, "cls": 8, "txt": 8}
    assert [shard["samples"] for shard in about["shards"]] == [5, 3]
    assert read_dataset(str(tmp_path / "digits")) == dataset


def test_meta_members_and_names_without_extension_are_left_out(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar", [("__meta__/about", {"json": b"{}"}), ("one", {"txt": b"1"})]
    )
    assert list(index_shard(path).keys) == ["one"]
    index = collect_samples(
        path, [Member("README", 0, 1), Member(".hidden", 0, 1), Member("k.txt", 512, 1)]
    )
    assert list(index.keys) == ["k"]


def test_the_fingerprint_follows_contents_and_order(tmp_path: Path) -> None:
    digits = digit_samples(4)
    one = write_folder(tmp_path / "one", [digits[:2], digits[2:]])
    same = write_folder(tmp_path / "same", [digits[:2], digits[2:]])
    other = write_folder(tmp_path / "other", [digits[2:], digits[:2]])
    assert one.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "a shard must hold samples .* but it holds none"),
        ([Member("README", 0, 3)], "a shard must hold samples"),
        (
            [Member("a.txt", 0, 3), Member("b.txt", 0, 3), Member("a.png", 0, 3)],
            "members of one sample must stand side by side, but 'a.png' comes after",
        ),
        (
            [Member("a.txt", 0, 3), Member("a.TXT", 0, 3)],
            "one member of an extension, but 'a' has two '.txt'",
        ),
        ([Member("a.txt", 0, 2**31)], "must be at most 2147483647 bytes, but 'a.txt' has 21474"),
    ],
)
def test_members_that_are_no_samples_are_named(members: list[Member], message: str) -> None:
    with pytest.raises(DataError, match=rf"shard-7\.tar: .*{message}"):
        collect_samples(Path("shard-7.tar"), members)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shrink(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512])


FAULTS = {
    "no folder": (
        lambda d: os.rename(d, d.with_name("elsewhere")),
        "data: a data set must be a folder of shards, but there is nothing at this path",
    ),
    "no dataset.json": (
        lambda d: (d / "dataset.json").unlink(),
        r"must hold dataset.json and shards, but it has 2 without an index.*`ssl-data index",
    ),
    "nothing in it": (
        lambda d: [file.unlink() for file in d.iterdir()],
        "must hold dataset.json and shards, but it has no shards at all",
    ),
    "broken json": (
        lambda d: (d / "dataset.json").write_text("{"),
        "dataset.json: must be readable JSON, but is not",
    ),
    "json of another kind": (
        lambda d: (d / "dataset.json").write_text("[1]"),
        "dataset.json: version must be 1, but is None",
    ),
    "later version": (lambda d: edit(d, version=9), "version must be 1, but is 9"),
    "half a json": (lambda d: edit(d, shards=[{"name": "x"}]), "must list name, shards, fields"),
    "no shards": (lambda d: edit(d, shards=[]), "must have at least one shard, but has none"),
    "name that leaves the folder": (
        lambda d: edit(d, shards=[{"name": "../x.tar", "samples": 1, "bytes": 1, "xxh3": ""}]),
        r"must be a plain file name, but is '\.\./x\.tar'",
    ),
    "empty shard": (
        lambda d: edit(d, shards=[{"name": "s.tar", "samples": 0, "bytes": 1, "xxh3": ""}]),
        r"s\.tar: a shard must hold samples, but is empty",
    ),
    "missing shard": (
        lambda d: (d / "shard-000001.tar").unlink(),
        r"shard-000001\.tar: dataset\.json lists this shard, but it is missing; put it back",
    ),
    "changed shard": (
        lambda d: shrink(d / "shard-000001.tar"),
        r"shard-000001\.tar: must be \d+ bytes as when it was indexed, but is \d+; restore it",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_folder_says_what_and_where(tmp_path: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    folder = tmp_path / "data"
    write_folder(folder, [digit_samples(3), digit_samples(2)])
    spoil(folder)
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(folder)
    assert caught.value.exit_code == 2
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "shards/train-{000000..000099}.tar",
            "put them in one folder, run `ssl-data index FOLDER`",
        ),
        ("x.tar", "put them in one folder"),
        ("s3:/bucket/x", "must be a local folder, but this is a remote address"),
        ("s3://bucket/x", "must be a local folder, but this is a remote address"),
    ],
)
def test_what_is_no_local_folder_says_what_to_do(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_dataset(name)


def test_an_index_of_other_contents_is_refused(tmp_path: Path) -> None:
    dataset = write_folder(tmp_path / "data", [digit_samples(3), digit_samples(2)])
    index_path(dataset.path(1)).write_bytes(index_path(dataset.path(0)).read_bytes())
    with pytest.raises(DataError, match="must describe the 2 samples .* but describes 3"):
        read_shard_index(dataset, 1, ["png"])
    index_path(dataset.path(1)).write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"must be the readable index of shard-000001\.tar"):
        read_shard_index(dataset, 1, ["png"])
    index_path(dataset.path(1)).unlink()
    with pytest.raises(DataError, match="run `ssl-data index"):
        read_shard_index(dataset, 1, ["png"])


def test_offsets_beyond_four_gigabytes_survive() -> None:
    index = collect_samples(Path("a.tar"), [Member("a.txt", 5 << 30, 7)])
    assert index.offsets["txt"].dtype == np.int64
    assert index.offsets["txt"][0] == 5 << 30
