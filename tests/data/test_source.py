import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_scale.data.decoding import LabelField, NumberField
from ssl_scale.data.image_field import ImageField
from ssl_scale.data.index import Dataset, ShardIndex, read_shard_index
from ssl_scale.data.source import SampleRef, Source
from ssl_scale.errors import DataError
from tests.data.shards import digit_samples, write_folder, write_numbers

NUMBER = {"n": NumberField("n")}
FIELDS = {
    "image": ImageField(["jpg", "png"], size_px=8, channels=1),
    "label": LabelField("cls", 10),
}


def test_a_sample_is_what_was_written(tmp_path: Path) -> None:
    samples = digit_samples(10)
    write_folder(tmp_path / "digits", [samples[:6], samples[6:]])
    source = Source("digits", tmp_path / "digits", FIELDS, seed=3)
    seen = {}
    for position in range(len(source)):
        ref = source.locate(position)
        sample = source.read(ref)
        assert sample["__key__"] == source.key(ref)
        assert Path(sample["__url__"]).name == f"shard-00000{ref.shard}.tar"
        seen[sample["__key__"]] = sample
    for key, members in samples:
        assert np.array_equal(seen[key]["image"], FIELDS["image"].decode(members["png"], "png"))
        assert seen[key]["label"] == int(members["cls"])


def test_a_sample_that_lacks_a_field_has_none(tmp_path: Path) -> None:
    write_folder(tmp_path / "d", [[("a", {"cls": b"1"}), ("b", {"cls": b"2", "num": b"7"})]])
    fields = {"label": LabelField("cls", 10), "number": NumberField("num")}
    source = Source("d", tmp_path / "d", fields, shuffle=False)
    assert [source.read(source.locate(n))["number"] for n in range(2)] == [None, 7]


def test_the_first_extension_that_a_sample_has_counts(tmp_path: Path) -> None:
    write_folder(
        tmp_path / "d", [[("a", {"b": b"1"}), ("b", {"a": b"2", "b": b"3"}), ("c", {"a": b"4"})]]
    )
    source = Source("d", tmp_path / "d", {"n": NumberField(["a", "b"])}, shuffle=False)
    assert [source.read(source.locate(n))["n"] for n in range(3)] == [1, 2, 4]


def test_seeds_belong_to_sample_epoch_and_run(tmp_path: Path) -> None:
    write_numbers(tmp_path / "d", [7, 5])
    fields = {"n": NumberField("n")}
    one = Source("x", tmp_path / "d", fields, seed=1)
    renamed = Source("y", tmp_path / "d", fields, seed=1, streams=2, window=3)
    other = Source("x", tmp_path / "d", fields, seed=2)

    def by_key(source: Source, epoch: int) -> dict[str, int]:
        refs = source.locate_all(np.arange(12) + 12 * epoch)
        keys = [source.key(ref) for ref in refs]
        seeds = source.seeds([ref.epoch for ref in refs], keys)
        return dict(zip(keys, seeds.tolist(), strict=True))

    assert by_key(one, 0) == by_key(renamed, 0)
    assert len(
        {*by_key(one, 0).values(), *by_key(one, 1).values(), *by_key(other, 0).values()}
    ) == (3 * 12)


def test_two_sources_over_one_data_set_do_not_run_side_by_side(tmp_path: Path) -> None:
    write_numbers(tmp_path / "d", [40])
    rows = [
        [
            ref.row
            for ref in Source(name, tmp_path / "d", NUMBER, streams=4).locate_all(np.arange(40))
        ]
        for name in ("one", "two")
    ]
    assert rows[0] != rows[1]


def test_the_fingerprint_tells_contents_and_order(tmp_path: Path) -> None:
    write_numbers(tmp_path / "d", [5, 5])
    write_numbers(tmp_path / "e", [5, 5], first=1)
    fields = {"n": NumberField("n")}
    same = [Source("x", tmp_path / "d", fields, seed=1).fingerprint for _ in range(2)]
    assert same[0] == same[1]
    others = {
        Source("x", tmp_path / "e", fields, seed=1).fingerprint,
        Source("x", tmp_path / "d", fields, seed=2).fingerprint,
        Source("x", tmp_path / "d", fields, seed=1, window=9).fingerprint,
        Source("x", tmp_path / "d", fields, seed=1, shuffle=False).fingerprint,
    }
    assert len({same[0], *others}) == 5


def test_few_indexes_stay_in_memory(tmp_path: Path) -> None:
    write_numbers(tmp_path / "d", [2] * 12)
    source = Source("d", tmp_path / "d", {"n": NumberField("n")}, streams=1, window=2)
    seen = {source.read(source.locate(position))["n"] for position in range(24)}
    assert seen == set(range(24))
    assert len(source._shards) <= 5


def test_a_window_over_many_shards_opens_each_of_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_numbers(tmp_path / "d", [5] * 24)
    opened: list[int] = []

    def note(dataset: Dataset, shard: int, extensions: Iterable[str]) -> ShardIndex:
        opened.append(shard)
        return read_shard_index(dataset, shard, extensions)

    monkeypatch.setattr("ssl_scale.data.open_shard.read_shard_index", note)
    source = Source("d", tmp_path / "d", NUMBER, streams=2, window=30)
    for ref in source.locate_all(np.arange(120)):
        source.read(ref)
    assert len(opened) == 24


def test_a_source_travels_without_what_it_read(tmp_path: Path) -> None:
    write_numbers(tmp_path / "d", [5])
    source = Source("d", tmp_path / "d", {"n": NumberField("n")}, seed=4)
    expected = [source.read(source.locate(n)) for n in range(5)]
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301 - our own bytes
    assert not copy._shards
    assert [copy.read(copy.locate(n)) for n in range(5)] == expected


def test_a_field_that_no_sample_has_stops_at_opening(tmp_path: Path) -> None:
    write_folder(tmp_path / "digits", [digit_samples(2)])
    with pytest.raises(
        DataError,
        match=r"digits: source 'mine' must have field 'sound' \(\.wav or \.flac\), but its shards "
        r"hold only \.cls, \.png, \.txt; name one",
    ) as caught:
        Source("mine", tmp_path / "digits", {"sound": NumberField(["wav", "flac"])})
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("extension", "content", "message"),
    [
        ("cls", b"10", r"field 'label' must be a whole number in \[0, 10\), but is '10'"),
        ("png", b"no", "field 'image' must be a picture, but does not decode"),
    ],
)
def test_a_bad_sample_names_source_shard_key_and_field(
    tmp_path: Path, extension: str, content: bytes, message: str
) -> None:
    samples = digit_samples(3)
    samples[1][1][extension] = content
    write_folder(tmp_path / "d", [samples])
    source = Source("mine", str(tmp_path / "d"), FIELDS, shuffle=False)
    source.read(source.locate(0))
    with pytest.raises(
        DataError, match=rf"source 'mine': .*shard-000000\.tar: sample 'digit-0001': {message}"
    ):
        source.read(source.locate(1))


def test_the_first_read_of_far_positions_is_the_same_as_on_the_way(tmp_path: Path) -> None:
    write_numbers(tmp_path / "d", [9, 4, 8])
    fields = {"n": NumberField("n")}
    walked = Source("d", tmp_path / "d", fields, streams=3, window=5)
    refs: list[SampleRef] = [walked.locate(position) for position in range(21 * 10)]
    fresh = Source("d", tmp_path / "d", fields, streams=3, window=5)
    assert fresh.locate(21 * 10 - 1) == refs[-1]
    assert torch.is_tensor(fields["n"].collate([fresh.read(refs[-1])["n"]]))


@pytest.mark.parametrize("fields", [("image", "label"), ("label",)])
def test_bytes_that_changed_in_place_are_named_where_they_are_read(
    tmp_path: Path, fields: tuple[str, ...]
) -> None:
    dataset = write_folder(tmp_path / "d", [digit_samples(3)])
    index = read_shard_index(dataset, 0, ["cls"])
    with dataset.path(0).open("r+b") as shard:
        shard.seek(int(index.offsets["cls"][1]))
        shard.write(b"8")
    chosen = {name: FIELDS[name] for name in fields}
    source = Source("mine", tmp_path / "d", chosen, shuffle=False)
    source.read(source.locate(0))
    with pytest.raises(
        DataError,
        match=r"shard-000000\.tar: sample 'digit-0001': the bytes of field 'label' must be those "
        r"that were indexed, but are others: .*; restore it, or run `ssl-data index`",
    ):
        source.read(source.locate(1))
    unchecked = Source("mine", tmp_path / "d", chosen, shuffle=False, checksums=False)
    assert unchecked.read(unchecked.locate(1))["label"] == 8


def test_a_changed_member_that_no_field_reads_is_nothing_to_training(tmp_path: Path) -> None:
    dataset = write_folder(tmp_path / "d", [digit_samples(2)])
    index = read_shard_index(dataset, 0, ["txt"])
    with dataset.path(0).open("r+b") as shard:
        shard.seek(int(index.offsets["txt"][1]))
        shard.write(b"?")
    source = Source("mine", tmp_path / "d", FIELDS, shuffle=False)
    assert source.read(source.locate(1))["label"] == 1
