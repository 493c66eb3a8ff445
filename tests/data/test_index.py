import json
import os
from pathlib import Path

import pytest

from ssl_scale.data.index import check_shards, read_dataset, read_shard_index
from ssl_scale.data.samples import collect_samples
from ssl_scale.data.tar import Member
from ssl_scale.errors import DataError
from tests.data.shards import digit_samples, index_shard, write_folder, write_tar


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


def test_the_folder_has_the_agreed_form(tmp_path: Path) -> None:
    write_folder(tmp_path / "digits", [digit_samples(5), digit_samples(3)])
    names = {path.name for path in (tmp_path / "digits").iterdir()}
    assert names == {"shard-000000.tar", "shard-000001.tar", "dataset.index", "dataset.json"}
    about = json.loads((tmp_path / "digits" / "dataset.json").read_text())
    assert about["version"] == 3
    assert about["name"] == "digits"
    assert (about["num_shards"], about["num_samples"]) == (2, 8)
    assert about["fields"] == {"png": 8, "cls": 8, "txt": 8}
    dataset = read_dataset(str(tmp_path / "digits"))
    assert [shard.samples for shard in dataset.shards] == [5, 3]
    assert dataset.sizes.tolist() == [5, 3]
    assert dataset.shards.total_bytes == sum(dataset.path(n).stat().st_size for n in (0, 1))


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
            "whose members stand side by side, but 'a.png' comes after",
        ),
        (
            [Member("a.txt", 0, 3), Member("a.TXT", 0, 3)],
            "one member of an extension, but 'a' has two '.txt'",
        ),
        (
            [Member("a.jpg", 0, 0, link="b.jpg")],
            "must hold its own bytes, but 'a.jpg' is a link to 'b.jpg'",
        ),
        ([Member("a.txt", 0, 2**31)], "must be at most 2147483647 bytes, but 'a.txt' has 21474"),
    ],
)
def test_members_that_are_no_samples_are_named(members: list[Member], message: str) -> None:
    with pytest.raises(DataError, match=rf"shard-7\.tar: .*{message}"):
        collect_samples(Path("shard-7.tar"), members)


def test_members_that_fit_nowhere_can_be_set_aside() -> None:
    told: list[tuple[str, str]] = []
    members = [
        Member("a.txt", 512, 3),
        Member("a.TXT", 1536, 3),
        Member("b.txt", 2560, 3),
        Member("a.png", 3584, 3),
        Member("b.png", 4608, 0, link="a.png"),
        Member("c.png", 5632, 0, link="a.png"),
    ]
    index = collect_samples(Path("s.tar"), members, lambda key, why: told.append((key, why)))
    assert list(index.keys) == ["a", "b"] and set(index.offsets) == {"txt"}
    assert index.offsets["txt"].tolist() == [512, 2560]
    assert [key for key, _ in told] == ["a", "a", "b", "c"]
    assert "two '.txt'" in told[0][1] and "link to 'a.png'" in told[2][1]


def edit(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shrink(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-128])


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
        "dataset.json: version must be 3, but is None",
    ),
    "later version": (lambda d: edit(d, version=9), "version must be 3, but is 9"),
    "half a json": (lambda d: edit(d, index={"bytes": 3}), "must say name, num_shards, num_s"),
    "index of another kind": (lambda d: edit(d, index=[]), "must say name, num_shards, num_s"),
    "other counts": (
        lambda d: edit(d, num_samples=7),
        r"must count the 2 shards and 5 samples of dataset\.index, but counts 2 and 7",
    ),
    "no index": (
        lambda d: (d / "dataset.index").unlink(),
        r"dataset\.index: must be the index that .* cannot be opened",
    ),
    "cut index": (lambda d: shrink(d / "dataset.index"), r"dataset\.index: .* but has \d+ bytes"),
    "missing shard": (
        lambda d: (d / "shard-000001.tar").unlink(),
        r"shard-000001\.tar: dataset\.index lists this shard, but it is missing; put it back",
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
        ("s3:/bucket/x", "an address must be PROTOCOL://PLACE, but is not"),
    ],
)
def test_what_is_no_local_folder_says_what_to_do(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_dataset(name)


def test_shards_beyond_the_first_ones_are_looked_at_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_scale.data.index._LOOKED_AT", 2)
    write_folder(tmp_path / "data", [digit_samples(1)] * 3)
    (tmp_path / "data" / "shard-000002.tar").unlink()
    dataset = read_dataset(tmp_path / "data")
    check_shards(dataset, 2)
    with pytest.raises(DataError, match=r"shard-000002\.tar: .* but it is missing"):
        check_shards(dataset)
