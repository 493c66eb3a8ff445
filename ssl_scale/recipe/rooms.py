"""Finding the part that a recipe names, without importing the room it is in.

A room is a package; what it holds is read off its source (class names and the names of their bases,
by `ast`), so that only the module of a part that is used gets imported, and no list has to be kept.
Outside of our rooms, ``my_package.my_module:MyPart`` names any importable part.
"""

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ssl_scale.part import Part
from ssl_scale.recipe.faults import hint


@dataclass(frozen=True)
class ClassSource:
    """A class as its source shows it."""

    module: str
    bases: tuple[str, ...]


@dataclass(frozen=True)
class Room:
    """Marks an annotation: the parts that may stand here are in this package."""

    package: str


def room_of(base: type[Part]) -> str:
    """The package (or single module) in which parts of a kind are looked for."""
    return base.__module__.rpartition(".")[0] or base.__module__


@cache
def classes_in(room: str) -> Mapping[str, tuple[ClassSource, ...]]:
    """Class name -> where classes of that name are defined, for a package or module."""
    spec = importlib.util.find_spec(room)
    found: dict[str, tuple[ClassSource, ...]] = {}
    for module, file in _sources(room, spec):
        for node in ast.parse(file.read_bytes()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                source = ClassSource(module, tuple(_base_name(base) for base in node.bases))
                found[node.name] = (*found.get(node.name, ()), source)
    return found


def _sources(room: str, spec: "importlib.machinery.ModuleSpec | None") -> list[tuple[str, Path]]:
    if spec is None:
        return []
    if spec.submodule_search_locations is None:
        return [(room, Path(spec.origin))] if spec.origin else []
    files = []
    for location in spec.submodule_search_locations:
        for file in sorted(Path(location).rglob("*.py")):
            words = file.relative_to(location).with_suffix("").parts
            files.append((".".join((room, *words)).removesuffix(".__init__"), file))
    return files


def _base_name(base: ast.expr) -> str:
    if isinstance(base, ast.Subscript):
        return _base_name(base.value)
    return base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")


def parts_in(room: str, base: type[Part]) -> list[str]:
    """Names of the classes in a room that descend from a base, as far as their source shows."""
    classes = classes_in(room)
    known = {base.__name__}
    while True:
        more = {
            name
            for name, sources in classes.items()
            if any(known.intersection(source.bases) for source in sources)
        }
        if more <= known:
            return sorted(known - {base.__name__})
        known |= more


def find_part(name: str, base: type[Part], room: str) -> type[Part]:
    """Import the part that a recipe names.

    Args:
        name: of a class in the room, or ``package.module:Class``.
        base: what the part must be.
        room: package to look in.

    Raises:
        LookupError: there is no such part; the message ends in the nearest.
    """
    if ":" in name:
        module, _, class_name = name.partition(":")
        found = getattr(_import(module), class_name, None)
        if not isinstance(found, type):
            raise LookupError(f"module {module} has no class {class_name!r}")
    else:
        sources = classes_in(room).get(name, ())
        if not sources:
            raise LookupError(
                f"there is no {_kind(base)} {name!r}{hint(name, parts_in(room, base))}"
            )
        if len(sources) > 1:
            modules = " and ".join(source.module for source in sources)
            raise LookupError(f"name must be unique in {room}, but {name!r} is in {modules}")
        found = getattr(_import(sources[0].module), name)
    if not issubclass(found, base):
        raise LookupError(
            f"must be a {_kind(base)}, but {name} is not; "
            f"there is {', '.join(parts_in(room, base)) or 'none'}"
        )
    if inspect.isabstract(found):
        raise LookupError(
            f"{name} is only a frame for parts; "
            f"there is {', '.join(parts_in(room, found)) or 'none'}"
        )
    return found


def _kind(base: type[Part]) -> str:
    return "part" if base is Part else base.__name__


def _import(module: str) -> object:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise LookupError(
            f"module {module} must be importable, but {missing!r} cannot be imported ({error}); "
            "install it or set PYTHONPATH"
        ) from error
