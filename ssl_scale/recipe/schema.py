"""JSON Schema of recipes, for editors: completion, hover texts, and typing errors as you type.

Made from the same annotations that `checking` reads. It asks for less than the reader does: a
recipe that extends another may leave out anything, also a part's ``type``, so nothing is required;
and whether a name that is referred to exists only the reader can tell.
"""

import inspect
import re
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter

from ssl_scale.part import Key, Part, Reference, annotations_of, is_given
from ssl_scale.recipe import annotations as notes
from ssl_scale.recipe.annotations import mark, part_class, strip
from ssl_scale.recipe.checking import annotations_of_function
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.recipe.rooms import Room, find_part, parts_in, room_of

Schema = dict[str, Any]

_ELSEWHERE = {"pattern": "^[\\w.]+:\\w+$", "description": "my_package.my_module:MyPart"}


def recipe_schema() -> Schema:
    """The schema of a recipe file (draft 2020-12)."""
    writer = _Writer()
    schema = writer.plan(Recipe)
    extends = {
        "description": "Recipes that this one is laid over, later ones over earlier ones.",
        "type": ["string", "array"],
        "items": {"type": "string"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ssl_scale recipe",
        **schema,
        "properties": {"extends": extends, **schema["properties"]},
        "$defs": dict(sorted(writer.definitions.items())),
    }


class _Writer:
    """One walk over the annotations; parts become definitions that refer to each other."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}

    def value(self, annotation: Any) -> Schema:
        """What may stand under an annotation."""
        inner, _ = strip(annotation)
        if notes.is_union(inner):
            return {"anyOf": [self.value(member) for member in get_args(inner)]}
        if reference := mark(annotation, Reference):
            return {"type": "string", "description": f"Name of an entry of {reference.section}."}
        if (base := part_class(inner)) is not None:
            room = mark(annotation, Room)
            return self.parts(base, room.package if room else room_of(base))
        if notes.is_plan(inner):
            return self.plan(inner)
        if notes.is_special(inner) and notes.is_mapping(inner):
            each = self.value(get_args(inner)[1])
            return {"type": "object", "additionalProperties": _or_null(each)}
        if notes.is_special(inner) and notes.is_list(inner):
            return self._list(inner)
        return TypeAdapter(annotation).json_schema()

    def parts(self, base: type[Part], room: str) -> Schema:
        """Any part of a kind, told apart by its ``type``."""
        name = base.__name__
        if name not in self.definitions:
            self.definitions[name] = {}  # parts may nest parts of their own kind
            found = [_concrete(found, base, room) for found in (name, *parts_in(room, base))]
            self.definitions[name] = _by_type([part for part in found if part is not None], self)
        here = {"$ref": f"#/$defs/{name}"}
        if not hasattr(base, "from_scalar"):
            return here
        scalar = annotations_of_function(base.from_scalar)
        return {"anyOf": [self.value(next(iter(scalar.values()))), here]}

    def plan(self, plan: type) -> Schema:
        """A section; one with a ``spec`` is a part with further keys beside."""
        hints = annotations_of(plan)
        own = self.arguments(plan, hints)
        spec = own.pop("spec", None)
        if spec is None:
            return _mapping(own, plan)
        base = part_class(hints["spec"])
        assert base is not None, "a section's spec is a part"
        definition = self.definitions[base.__name__]
        return {
            "type": "object",
            "properties": {**definition["properties"], **own},
            "allOf": [_open(branch, own) for branch in definition["allOf"]],
        }

    def part(self, part: type[Part]) -> Schema:
        """A part's constructor."""
        return _mapping({"type": {}, **self.arguments(part, annotations_of(part))}, part)

    def arguments(self, owner: type, hints: Mapping[str, Any]) -> dict[str, Schema]:
        """What a constructor takes from a recipe, with what its docstring says of it."""
        told = _arguments_told(owner)
        found = {}
        for name, parameter in inspect.signature(owner).parameters.items():
            annotation = hints.get(name)
            if is_given(annotation) or annotation is None:
                continue
            key = mark(annotation, Key)
            schema = _or_null(self.value(annotation))
            if name in told:
                schema = {**schema, "description": told[name]}
            if isinstance(parameter.default, bool | int | float | str):
                schema = {**schema, "default": parameter.default}
            found[key.name if key else name] = schema
        return found

    def _list(self, annotation: Any) -> Schema:
        members = list(get_args(annotation)) or [Any]
        if get_origin(annotation) is not tuple or members[-1] is ...:
            return {"type": "array", "items": self.value(members[0])}
        items = [self.value(member) for member in members]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}


def _concrete(name: str, base: type[Part], room: str) -> type[Part] | None:
    try:
        return find_part(name, base, room)
    except LookupError:  # a frame for parts, or one whose own library is not installed
        return None


def _by_type(parts: list[type[Part]], writer: _Writer) -> Schema:
    names = [part.__name__ for part in parts]
    return {
        "type": ["object", "null"],
        "properties": {"type": {"anyOf": [{"enum": names}, _ELSEWHERE]}},
        "allOf": [
            {
                "if": {
                    "type": "object",
                    "properties": {"type": {"const": part.__name__}},
                    "required": ["type"],
                },
                "then": writer.part(part),
            }
            for part in parts
        ],
    }


def _open(branch: Schema, own: Mapping[str, Schema]) -> Schema:
    """A part's branch that lets the section's own keys pass."""
    beside: dict[str, Schema] = dict.fromkeys(own, {})
    then = branch["then"]
    return {**branch, "then": {**then, "properties": {**beside, **then["properties"]}}}


def _mapping(properties: dict[str, Schema], owner: type) -> Schema:
    summary = inspect.getdoc(owner) or ""
    return {
        "type": "object",
        "description": summary.partition("\n\nArgs:")[0],
        "properties": properties,
        "additionalProperties": False,
    }


def _or_null(schema: Schema) -> Schema:
    """Null removes what a recipe inherits.

    Not as an alternative where it can be helped: editors explain a mistake in one schema better
    than one in all of several.
    """
    if "$ref" in schema:  # definitions take null
        return schema
    if isinstance(schema.get("type"), str) and "const" not in schema:
        enum = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
        return {**schema, "type": [schema["type"], "null"], **enum}
    null: Schema = {"type": "null"}
    if null in schema.get("anyOf", ()):
        return schema
    return {"anyOf": [*schema.get("anyOf", [schema]), null]}


def _arguments_told(owner: type) -> dict[str, str]:
    """Argument name -> its words, from the ``Args:`` of a docstring."""
    _, _, section = (inspect.getdoc(owner) or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", section)[0]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", section, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in found}
