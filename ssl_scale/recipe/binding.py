"""Which path a data role means: ``--data``, the recipe's ``paths``, or the user's own file."""

import os
from collections.abc import Mapping
from pathlib import Path

from ssl_scale.recipe.entry import Entry, kind
from ssl_scale.recipe.faults import Faults, Place
from ssl_scale.recipe.loading import load

VARIABLE = "SSL_SCALE_DATA"


def user_file() -> Path:
    """The file in which a user binds roles once for all recipes."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path("~/.config/ssl_scale/data.yaml").expanduser()


def read_bindings(root: Entry, bindings: Mapping[str, str], faults: Faults) -> dict[str, str]:
    """Role -> absolute path or address; the command line wins, then the recipe.

    Args:
        root: the merged recipe.
        bindings: from the command line.
        faults: takes malformed ones.
    """
    found: dict[str, str] = {}
    file = user_file()
    if file.is_file():
        found |= _section(load(file.read_bytes(), str(file)), "", faults)
    paths = root.at("paths")
    if paths is not None:
        found |= _section(paths, "paths", faults)
    for role, path in bindings.items():
        entry = Entry(path, Place(f"--data {role}"))
        found |= _section(Entry({role: entry}, entry.place), "", faults)
    return found


def _section(section: Entry, path: str, faults: Faults) -> dict[str, str]:
    if not section.is_mapping:
        if section.value is not None:
            faults.add(section.place, path, f"must map roles to paths, but is {kind(section)}")
        return {}
    found = {}
    for role, entry in section.items.items():
        here = f"{path}.{role}" if path else role
        if not isinstance(entry.value, str) or not entry.value:
            faults.add(entry.place, here, f"must be a path, but is {kind(entry)}")
        elif "@" in entry.value.partition("://")[2].partition("/")[0]:
            faults.add(entry.place, here, "must not hold a password; recipes are written to disk")
        else:
            found[role] = locate(entry.value, entry.place)
    return found


def is_path(role: str) -> bool:
    """Whether the recipe gives a path in place of a role."""
    return "/" in role


def path_of(entry: Entry, bindings: Mapping[str, str]) -> str | None:
    """The path that a role stands for, or that stands in its place; None if it is not bound."""
    role = str(entry.value)
    return locate(role, entry.place) if is_path(role) else bindings.get(role)


def locate(path: str, place: Place) -> str:
    """An absolute path; relative ones are relative to the file they were written in."""
    if "://" in path:
        return path
    return os.path.abspath(place.folder / Path(path).expanduser())
