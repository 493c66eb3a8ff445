import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_scale.errors import RecipeError
from ssl_scale.recipe.entry import plain
from ssl_scale.recipe.loading import dump, load


def test_every_key_and_item_remembers_its_line() -> None:
    root = load("a: 1\nb:\n  c: {d: 2}\n  e:\n  - 5\n  - 6\n", "mine.yaml")
    assert [entry.place.line for entry in root.items.values()] == [1, 2]
    inner = root.at("b", "c", "d")
    assert inner is not None and str(inner.place) == "mine.yaml:3"
    items = root.items["b"].items["e"].value
    assert isinstance(items, list) and [item.place.line for item in items] == [5, 6]


def test_numbers_are_read_as_people_write_them() -> None:
    values = plain(load("[1e-3, 1E5, .5, 1.0e-3, -2e3, 7, 1_000, yes, ~, 2024-01-01, .inf]", "x"))
    assert values == [1e-3, 1e5, 0.5, 1e-3, -2e3, 7, 1000, True, None, "2024-01-01", math.inf]
    assert [type(value) for value in values[:2]] == [float, float]


scalars = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(trees)
def test_what_is_dumped_is_read_back_equal(value: Any) -> None:
    assert plain(load(dump(value), "x")) == value


def test_text_that_looks_like_a_number_survives() -> None:
    assert plain(load(dump(["1e-3", "5", "yes", "<<"]), "x")) == ["1e-3", "5", "yes", "<<"]


def test_merge_keys_and_aliases_work() -> None:
    text = "base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}\nagain: {<<: [*b, {z: 4}]}\nsame: *b\n"
    assert plain(load(text, "x")) == {
        "base": {"x": 1, "y": 2},
        "other": {"x": 1, "y": 3},
        "again": {"x": 1, "y": 2, "z": 4},
        "same": {"x": 1, "y": 2},
    }


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: !!python/object/apply:os.system [touch owned]\n", 2, "tags are not allowed"),
        ("a: !!python/name:os.system\n", 1, "tags are not allowed"),
        ("a: !!binary aGVsbG8=\n", 1, "tags are not allowed"),
        (BOMB, None, "values must be at most"),
        ("a: &a 1\nb: [" + "*a, " * 101 + "]\n", None, "aliases must be at most 100"),
        ("a: &a [*a]\n", 1, "nesting must be at most"),
        ("[" * 2000, None, "nested too deeply"),
        ("a: 1\nb: 2\na: 3\n", 3, "key 'a' must stand once, but stands on line 1 too"),
        ("a: {b: 1}\nc: {d: 1, d: 2}\n", 2, "key 'd' must stand once"),
        ("a: 1\n  b: 2\n", 2, "must be plain YAML"),
        ("a: [1, 2\nb: 3\n", 2, "must be plain YAML"),
        ("a: 1\n---\nb: 2\n", 2, "must be plain YAML: but found another document"),
        ("5: 1\n", 1, "keys must be text"),
        ("on: 1\n", 1, "keys must be text"),
        ("[a, b]: 1\n", 1, "keys must be text"),
        ("a: " + "9" * 5000 + "\n", 1, "int is malformed"),
        ("a: \x00\n", None, "must be YAML text"),
    ],
    ids=range(17),
)
def test_what_is_not_plain_data_is_refused(
    text: str, line: int | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=message) as caught:
        load(text, "mine.yaml")
    assert str(caught.value).startswith(f"mine.yaml:{line}: " if line else "mine.yaml:")
    assert not list(tmp_path.iterdir())


def test_bytes_that_are_not_text_are_refused() -> None:
    with pytest.raises(RecipeError, match="must be YAML text in UTF-8"):
        load(b"a: \xff\xfe\xff", "mine.yaml")
