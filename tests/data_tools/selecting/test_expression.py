"""Conditions: what they mean, and that nothing but what is on the list gets through."""

import pyarrow as pa
import pytest
from ssl_scale_data_tools.selecting.expression import LONGEST, Expression

from ssl_scale.errors import DataError

BATCH = pa.record_batch(
    {
        "w": [10, 64, None, 5000],
        "text": ["a dog", "Cat", None, "x"],
        "exact.copy": [True, False, False, None],
        "part": pa.array([0.5, float("nan"), 0.1, 2.0]),
    }
)


def check(text: str) -> list[bool | None]:
    [condition] = Expression.parse(text).conditions
    return list(condition.check(BATCH).to_pylist())


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("w >= 64", [False, True, None, True]),
        ("64 <= w < 4096", [False, True, None, False]),
        ("not exact.copy", [False, True, True, None]),
        ("text is None", [False, False, True, False]),
        ("text is not None", [True, True, False, True]),
        ("text in ['x', 'Cat'] or w == 10", [True, True, None, True]),
        ("text not in ['x']", [True, True, None, False]),
        ("w == 10 or text == 'x'", [True, False, None, True]),
        ("contains(lower(text), 'c')", [False, True, None, False]),
        ("starts_with(text, 'a') or ends_with(text, 't')", [True, True, None, False]),
        ("matches(text, '^[a-z]+$')", [False, False, None, True]),
        ("length(text) > 3", [True, False, None, False]),
        ("w / 4 == 2.5", [True, False, None, False]),
        ("w * 2 + 1 - w == 11", [True, False, None, False]),
        ("abs(-w) > 60", [False, True, None, True]),
        ("coalesce(w, 0) < 1", [False, False, True, False]),
        ("part < 1", [True, False, True, False]),
        ("True", [True] * 4),
    ],
)
def test_conditions_mean_what_they_say(text: str, met: list[bool | None]) -> None:
    assert check(text) == met


def test_what_is_joined_by_and_are_conditions_of_their_own() -> None:
    expression = Expression.parse("w > 3 and (text == 'x' or w < 2) and not exact.copy")
    assert [condition.text for condition in expression.conditions] == [
        "w > 3",
        "text == 'x' or w < 2",
        "not exact.copy",
    ]
    assert expression.columns == ("w", "text", "exact.copy")


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch broken')",
        "eval('1')",
        "text.__class__.__mro__",
        "(lambda: 1)()",
        "[w for w in (1, 2)]",
        "{w}",
        "f'{w}'",
        "w if w else 1",
        "w ** 9",
        "w << 9",
        "w % 2 == 0",
        "w[0]",
        "w > [1]",
        "w is 1",
        "w in text",
        "w in [text]",
        "abs(w, w)",
        "abs(x=w)",
        "contains(text, text)",
        "b'x' == text",
        "1j == w",
        "...",
    ],
)
def test_what_is_not_on_the_list_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="must not have"):
        Expression.parse(text)


@pytest.mark.parametrize("text", ["", "w >", "w := 1", "w = 1", "import os", "w\0", "(" * 300])
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="is not understood"):
        Expression.parse(text)


def test_depth_and_length_are_bounded() -> None:
    with pytest.raises(DataError, match="nested at most"):
        Expression.parse("not " * 80 + "w")
    with pytest.raises(DataError, match="at most 10,000 letters"):
        Expression.parse("w" * (LONGEST + 1))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("w > 'a'", "must fit the columns' types"),
        ("text + 1 == 2", "must fit the columns' types"),
        ("w < 9999999999999999999999", "must fit the columns' types"),
        ("w", "must be true or false, but is of type int64"),
    ],
)
def test_types_that_do_not_fit_are_told(text: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        check(text)
