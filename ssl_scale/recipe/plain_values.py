"""Checking plain values (numbers, texts, lists of them) against annotations, by pydantic."""

import json
from typing import Any, get_args

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from ssl_scale.recipe.annotations import is_union, strip
from ssl_scale.recipe.entry import Entry, plain
from ssl_scale.recipe.faults import Faults, shown

INVALID: Any = object()


def check_plain(annotation: Any, entry: Entry, path: str, faults: Faults) -> Any:
    """The value as the annotation wants it, or `INVALID` after noting why not.

    Strict as JSON is: whole numbers pass as floats and lists as tuples, but no text is taken for a
    number and no number for a truth value.
    """
    value = plain(entry)
    if value is not None:
        annotation = _without_none(annotation)
    try:
        return TypeAdapter(annotation).validate_json(json.dumps(value), strict=True)
    except PydanticSchemaGenerationError:
        faults.add(entry.place, path, f"a value of type {annotation} cannot stand in a recipe")
    except ValidationError as error:
        inner, _ = strip(annotation)
        if is_union(inner):
            faults.add(entry.place, path, f"must be {_either(inner)}, but is {shown(value)}")
        else:
            for problem in error.errors(include_url=False):
                _note(problem, entry, path, faults)
    return INVALID


def accepts(annotation: Any, entry: Entry) -> bool:
    """Whether a plain value fits."""
    return check_plain(annotation, entry, "", Faults()) is not INVALID


def _without_none(annotation: Any) -> Any:
    """The one thing that may stand here beside null: its messages are more to the point."""
    inner, _ = strip(annotation)
    members = [member for member in get_args(inner) if member is not type(None)]
    return members[0] if is_union(inner) and len(members) == 1 else annotation


def _either(union: Any) -> str:
    names = []
    for member in get_args(union):
        inner, marks = strip(member)
        limits = f" ({', '.join(map(repr, marks))})" if marks else ""
        name = "null" if inner is type(None) else getattr(inner, "__name__", str(inner))
        names.append((str(inner) if get_args(inner) else name) + limits)
    return " or ".join(names).replace("typing.", "")


def _note(problem: Any, entry: Entry, path: str, faults: Faults) -> None:
    """One of pydantic's findings, at the innermost entry that it is about."""
    for step in problem["loc"]:
        if isinstance(step, int) and isinstance(entry.value, list) and step < len(entry.value):
            entry, path = entry.value[step], f"{path}[{step}]"
        elif isinstance(step, str) and step in entry.items:
            entry, path = entry.items[step], f"{path}.{step}"
    wanted = problem["msg"].removeprefix("Input should ").removeprefix("have ")
    if problem["msg"].startswith("Input should "):
        message = f"must {wanted}, but is {shown(plain(entry))}"
    else:
        message = f"{problem['msg']}, but is {shown(plain(entry))}"
    faults.add(entry.place, path, message)
