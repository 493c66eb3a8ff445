"""Checking a tree of entries against constructors; what comes out is specs and sections.

A part's constructor is its schema, and so is a section's (`DataPlan`, `TrainPlan`, the `Recipe`
itself): one walk checks them all, notes every fault and collects the names of other entries that
it meets, to be looked up when the whole tree is known.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from annotated_types import MinLen

from ssl_scale.part import Key, Part, Reference, Spec, annotations_of, is_given
from ssl_scale.recipe import annotations as notes
from ssl_scale.recipe.annotations import mark, part_class, strip
from ssl_scale.recipe.binding import path_of
from ssl_scale.recipe.entry import Entry, kind
from ssl_scale.recipe.faults import Faults, Place, hint, nearest
from ssl_scale.recipe.plain_values import INVALID, accepts, check_plain
from ssl_scale.recipe.rooms import Room, find_part, parts_in, room_of


@dataclass(frozen=True)
class Mention:
    """A name of another entry, met in the recipe.

    Args:
        section: where the entry must be.
        name: of the entry.
        place: where the name was written; for a default, where the part was.
        path: of the argument.
    """

    section: str
    name: str
    place: Place
    path: str


class Checker:
    """One walk over one recipe.

    Args:
        faults: takes what is wrong.
        bindings: role -> path; arguments that name a role become its path.
    """

    def __init__(self, faults: Faults, bindings: Mapping[str, str]) -> None:
        self.faults, self.bindings = faults, bindings
        self.mentions: list[Mention] = []
        self.specs: dict[str, Spec[Any]] = {}
        self._beside: dict[str, set[str]] = {}

    def value(self, annotation: Any, entry: Entry, path: str) -> Any:
        """What an entry means under an annotation; `INVALID` after noting why it means nothing."""
        inner, marks = strip(annotation)
        reference = mark(annotation, Reference)
        if notes.is_union(inner):
            return self._union(annotation, entry, path)
        if reference is not None:
            return self._reference(reference, entry, path)
        base = part_class(inner)
        if base is not None:
            room = mark(annotation, Room)
            return self.spec(base, entry, path, room.package if room else room_of(base))
        if notes.is_plan(inner):
            return self.section(inner, entry, path)
        if notes.is_special(inner) and notes.is_list(inner):
            self._check_length(marks, entry, path)
            return self._list(inner, entry, path)
        if notes.is_special(inner) and notes.is_mapping(inner):
            self._check_length(marks, entry, path)
            return self._mapping(inner, entry, path)
        return check_plain(annotation, entry, path, self.faults)

    def spec(self, base: type[Part], entry: Entry, path: str, room: str) -> Any:
        """A part, checked but not built."""
        if entry.is_scalar and entry.value is not None and hasattr(base, "from_scalar"):
            return self._from_scalar(base, entry, path)
        if not entry.is_mapping:
            return self._refuse(entry, path, f"must be a part, {{type: ...}}, but is {kind(entry)}")
        named = entry.at("type")
        if named is None or not isinstance(named.value, str):
            known = ", ".join(parts_in(room, base)) or "none"
            return self._refuse(named or entry, path, f"must name its `type`; there is {known}")
        try:
            part = find_part(named.value, base, room)
        except LookupError as error:
            return self._refuse(named, f"{path}.type", str(error.args[0]))
        given = {name: inner for name, inner in entry.items.items() if name != "type"}
        arguments, _ = self._arguments(part, given, entry.place, path)
        self.specs[path] = Spec(part, arguments, path)
        return self.specs[path]

    def section(self, plan: type, entry: Entry, path: str) -> Any:
        """A section of the recipe: a dataclass, whose ``spec`` takes the keys that are not its."""
        if not entry.is_mapping:
            return self._refuse(entry, path, f"must be a mapping, but is {kind(entry)}")
        items = entry.items
        hints = annotations_of(plan)
        if "spec" in hints:
            own = {_key(name, hints[name]) for name in hints if name != "spec"}
            rest = {name: inner for name, inner in items.items() if name not in own}
            items = {name: inner for name, inner in items.items() if name in own}
            items["spec"] = Entry(rest, entry.place)
            self._beside[path] = own
        arguments, complete = self._arguments(plan, items, entry.place, path)
        if not complete:
            return INVALID
        try:
            return plan(**arguments)
        except ValueError as error:
            return self._refuse(entry, path, str(error))

    def _arguments(
        self, owner: type, given: Mapping[str, Entry], place: Place, path: str
    ) -> tuple[dict[str, Any], bool]:
        """The valid arguments, and whether all that are required are among them."""
        hints = annotations_of(owner)
        parameters = {
            name: parameter
            for name, parameter in inspect.signature(owner).parameters.items()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }
        names = {_key(name, hints.get(name)): name for name in parameters}
        settable = [key for key, name in names.items() if not is_given(hints.get(name))]
        arguments: dict[str, Any] = {}
        for key, entry in given.items():
            here = path if key == "spec" else _below(path, key)
            if key not in settable:
                self._unknown(owner, key, names, settable, entry, path)
                continue
            value = self.value(hints.get(names[key], Any), entry, here)
            if value is not INVALID:
                arguments[names[key]] = value
        # A required argument that was misspelt is one fault, not two.
        misspelt = {nearest(key, settable) for key in given if key not in names}
        for key in settable:
            default = parameters[names[key]].default
            if key in given:
                continue
            if default is not inspect.Parameter.empty:
                self._mention_default(hints.get(names[key]), default, place, _below(path, key))
            elif key not in misspelt:
                what = f"must be given{'' if notes.is_plan(owner) else f' to {owner.__name__}'}"
                self.faults.add(place, _below(path, key), what)
        required = {
            name
            for name in map(names.__getitem__, settable)
            if parameters[name].default is inspect.Parameter.empty
        }
        return arguments, required <= arguments.keys()

    def _unknown(
        self,
        owner: type,
        key: str,
        names: Mapping[str, str],
        settable: list[str],
        entry: Entry,
        path: str,
    ) -> None:
        known = {*settable, *self._beside.get(path, ())}
        who = "this section" if notes.is_plan(owner) else owner.__name__
        if key in names:
            what = f"{who} is given {key!r} when it runs; a recipe cannot set it"
        else:
            what = f"{who} takes no {key!r}{hint(key, known)}"
        self.faults.add(entry.place, _below(path, key), what)

    def _mention_default(self, annotation: Any, default: Any, place: Place, path: str) -> None:
        reference = mark(annotation, Reference)
        if reference is not None and isinstance(default, str) and default:
            self.mentions.append(Mention(reference.section, default, place, path))

    def _from_scalar(self, base: Any, entry: Entry, path: str) -> Any:
        """What a bare scalar means: the part that ``from_scalar`` makes, which takes it alone."""
        hints = annotations_of_function(base.from_scalar)
        value = check_plain(next(iter(hints.values()), Any), entry, path, self.faults)
        if value is INVALID:
            return INVALID
        part = type(base.from_scalar(value))
        (name, *_) = inspect.signature(part).parameters
        self.specs[path] = Spec(part, {name: value}, path)
        return self.specs[path]

    def _reference(self, reference: Reference, entry: Entry, path: str) -> Any:
        if not isinstance(entry.value, str):
            wanted = f"must be a name in `{reference.section}`, but is {kind(entry)}"
            return self._refuse(entry, path, wanted)
        self.mentions.append(Mention(reference.section, entry.value, entry.place, path))
        if reference.section == "paths":
            return path_of(entry, self.bindings) or entry.value
        return entry.value

    def _union(self, annotation: Any, entry: Entry, path: str) -> Any:
        inner, marks = strip(annotation)
        members = [
            Annotated[(member, *marks)] if marks else member
            for member in get_args(inner)
            if member is not type(None)
        ]
        if entry.value is None and type(None) in get_args(inner):
            return None
        simple = [member for member in members if not notes.is_special(member)]
        special = [member for member in members if notes.is_special(member)]
        if not special:
            return check_plain(annotation, entry, path, self.faults)
        if simple and accepts(Union[tuple(simple)], entry):  # noqa: UP007
            return check_plain(Union[tuple(simple)], entry, path, self.faults)  # noqa: UP007
        fitting = [member for member in special if _may_be(member, entry)] or special
        # With several kinds of parts, the first that takes the entry without fault is meant.
        for member in fitting[:-1]:
            trial = Checker(Faults(), self.bindings)
            if trial.value(member, entry, path) is not INVALID and not trial.faults.found:
                return self.value(member, entry, path)
        return self.value(fitting[-1], entry, path)

    def _list(self, annotation: Any, entry: Entry, path: str) -> Any:
        if not isinstance(entry.value, list):
            return self._refuse(entry, path, f"must be a list, but is {kind(entry)}")
        members = list(get_args(annotation)) or [Any]
        if get_origin(annotation) is not tuple or members[-1] is ...:
            members = [members[0]] * len(entry.value)
        elif len(members) != len(entry.value):
            wanted = f"must have {len(members)} items, but has {len(entry.value)}"
            return self._refuse(entry, path, wanted)
        found = [
            self.value(member, inner, f"{path}[{place}]")
            for place, (member, inner) in enumerate(zip(members, entry.value, strict=True))
        ]
        if any(value is INVALID for value in found):
            return INVALID
        return found if get_origin(annotation) is list else tuple(found)

    def _mapping(self, annotation: Any, entry: Entry, path: str) -> Any:
        if not entry.is_mapping:
            return self._refuse(entry, path, f"must be a mapping, but is {kind(entry)}")
        key_type, value_type = get_args(annotation)
        found = {}
        for name, inner in entry.items.items():
            here = _below(path, name)
            self.value(key_type, Entry(name, inner.place), here)
            if inner.value is None and not _takes_none(value_type):
                what = "must not be empty; null removes only what is inherited"
                self.faults.add(inner.place, here, what)
                continue
            value = self.value(value_type, inner, here)
            if value is not INVALID:
                found[name] = value
        return found

    def _check_length(self, marks: tuple[Any, ...], entry: Entry, path: str) -> None:
        """A container's annotation may limit its length."""
        count = len(entry.value) if isinstance(entry.value, list | dict) else None
        for limit in marks:
            if isinstance(limit, MinLen) and count is not None and count < limit.min_length:
                what = f"must have at least {limit.min_length} entry, but has {count}"
                self._refuse(entry, path, what)

    def _refuse(self, entry: Entry, path: str, message: str) -> Any:
        self.faults.add(entry.place, path, message)
        return INVALID


def annotations_of_function(function: Any) -> dict[str, Any]:
    """A function's annotations by argument name."""
    hints = dict(inspect.get_annotations(function, eval_str=True))
    hints.pop("return", None)
    return hints


def _key(name: str, annotation: Any) -> str:
    key = mark(annotation, Key)
    return key.name if key else name


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _may_be(annotation: Any, entry: Entry) -> bool:
    inner, _ = strip(annotation)
    if mark(annotation, Reference) is not None:
        return isinstance(entry.value, str)
    base = part_class(inner)
    if base is not None:
        return entry.is_mapping or (hasattr(base, "from_scalar") and entry.is_scalar)
    return isinstance(entry.value, list) if notes.is_list(inner) else entry.is_mapping


def _takes_none(annotation: Any) -> bool:
    inner, _ = strip(annotation)
    return inner is Any or (notes.is_union(inner) and type(None) in get_args(inner))
