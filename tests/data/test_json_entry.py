from pathlib import Path

import pytest

from ssl_scale.data.assembly import Assembly
from ssl_scale.data.decoding import LabelField, NumberField
from ssl_scale.data.json_entry import json_entry
from ssl_scale.data.source import Source
from ssl_scale.data.undecodable import UndecodableError
from tests.data.shards import write_folder


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("name", b"caf\xc3\xa9"),
        ("rows.1.x", b"2.5"),
        ("rows", b'[{"x": 1}, {"x": 2.5}]'),
        ("flag", b"true"),
        ("none", None),
        ("empty", b""),
    ],
)
def test_an_entry_becomes_the_bytes_of_a_member(entry: str, found: bytes | None) -> None:
    member = (
        '{"name": "caf\\u00e9", "rows": [{"x": 1}, {"x": 2.5}], "flag": true, "none": null, '
        '"empty": ""}'
    )
    assert json_entry(member.encode(), "json", entry) == found


def test_without_an_entry_or_without_json_the_member_stays_as_it_is() -> None:
    assert json_entry(b"{no JSON", "json", None) == b"{no JSON"
    assert json_entry(b"{no JSON", "txt", "name") == b"{no JSON"


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (b"", "must be JSON, but is not"),
        (b'{"a": {"b": [1', "must be JSON, but is not"),
        (b"\xff\xfe\xff", "must be JSON, but is not"),
        (b'{"a": {"b": [NaN]}}', "must be JSON, but is not .NaN is no JSON number"),
        (b"[" * 200_000, "must be JSON, but is not"),
        (b'{"a": {"b": [' + b"1" * 5000 + b"]}}", "must be JSON, but is not"),
        (b'{"A": 1, "B": 2}', "must have the entry 'a.b.0', but at 'a' there is only A, B"),
        (b'{"a": {}}', "but at 'b' there is nothing"),
        (b'{"a": {"b": []}}', "but at '0' there is a list of 0"),
        (b'{"a": 7}', "but at 'b' there is 7"),
    ],
)
def test_what_is_no_json_or_lacks_the_entry_is_bad(member: bytes, message: str) -> None:
    with pytest.raises(UndecodableError, match=message):
        json_entry(member, "json", "a.b.0")


def test_half_a_character_is_no_crash() -> None:
    assert json_entry(b'{"a": "x\\ud800"}', "json", "a") == b"x?"


def test_a_batch_says_which_samples_lack_an_entry(tmp_path: Path) -> None:
    contents = [b'{"cls": 1, "x": null}', b'{"cls": null, "x": 2}', b'{"cls": 0, "x": 4}']
    write_folder(tmp_path / "set", [[(str(n), {"json": text}) for n, text in enumerate(contents)]])
    fields = {"cls": LabelField("json", 2, entry="cls"), "x": NumberField("json", entry="x")}
    source = Source("s", tmp_path / "set", fields, shuffle=False)
    assembly = Assembly(source, 3)
    for row in range(3):
        assembly.read(row, source.locate(row))
    found = assembly.finish().fields
    assert found["cls"].tolist() == [1, -1, 0]
    assert found["cls.present"].tolist() == [True, False, True]
    assert found["x"].nan_to_num(-9).tolist() == [-9, 2, 4]
    assert found["x.present"].tolist() == [False, True, True]
