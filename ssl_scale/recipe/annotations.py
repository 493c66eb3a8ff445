"""What a constructor's annotation asks for, taken apart: marks, nested parts, containers."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Annotated, Any, TypeGuard, TypeVar, Union, get_args, get_origin

from ssl_scale.part import Part, Reference, Spec

M = TypeVar("M")


def strip(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """An annotation without `Annotated`, and what `Annotated` said."""
    marks: tuple[Any, ...] = ()
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        marks = (*more, *marks)
    return annotation, marks


def mark(annotation: Any, kind: type[M]) -> M | None:
    """The mark of a kind that an annotation bears."""
    return next((found for found in strip(annotation)[1] if isinstance(found, kind)), None)


def sections_named(annotation: Any) -> set[str]:
    """Sections of the recipe that an argument names entries of, alone or inside of others."""
    inner, marks = strip(annotation)
    own = {found.section for found in marks if isinstance(found, Reference)}
    return own.union(*(sections_named(argument) for argument in get_args(inner)))


def is_union(annotation: Any) -> bool:
    """Whether several things may stand here."""
    return get_origin(annotation) in (Union, types.UnionType)


def is_list(annotation: Any) -> bool:
    """Whether a list stands here (any annotation of a sequence)."""
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Sequence)


def is_mapping(annotation: Any) -> bool:
    """Whether a mapping stands here."""
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def part_class(annotation: Any) -> type[Part] | None:
    """The kind of part that stands here, built or as a spec; None for other annotations."""
    inner, _ = strip(annotation)
    if get_origin(inner) is Spec:
        (inner,) = get_args(inner)
    elif inner is Spec:
        return Part
    if get_origin(inner) is not None:
        inner = get_origin(inner)
    return inner if isinstance(inner, type) and issubclass(inner, Part) else None


def is_plan(annotation: Any) -> TypeGuard[type]:
    """Whether a section of the recipe stands here: a dataclass that is not a part."""
    return isinstance(annotation, type) and is_dataclass(annotation)


def is_special(annotation: Any) -> bool:
    """Whether something in here needs more than a type check: a part, a reference, a section."""
    inner, marks = strip(annotation)
    if any(isinstance(found, Reference) for found in marks):
        return True
    if part_class(inner) or is_plan(inner):
        return True
    return any(is_special(argument) for argument in get_args(inner))
