"""Faults of a recipe: collected while reading, reported together, each with its place."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ssl_scale.errors import RecipeError


@dataclass(frozen=True)
class Place:
    """Where a value was written: a line of a file, or a command-line override (line 0)."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def folder(self) -> Path:
        """What relative paths written at this place are relative to."""
        return Path(self.file).parent if self.line else Path()


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Args:
        place: where it was written.
        path: keys that lead to it, joined by dots; empty for a whole file.
        message: what it must be and what it is.
    """

    place: Place
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (str(self.place), self.path, self.message)))


class RecipeFaults(RecipeError):
    """A recipe with one fault or more.

    Args:
        title: the recipe, as the user named it.
        faults: all of them, in the order of the file.
    """

    def __init__(self, title: str, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        lines = [str(fault) for fault in faults]
        many = f"recipe {title} has {len(lines)} faults"
        super().__init__("\n".join([many, *lines]) if len(lines) > 1 else lines[0])


class Faults:
    """Collects faults."""

    def __init__(self) -> None:
        self.found: dict[Fault, None] = {}

    def add(self, place: Place, path: str, message: str) -> None:
        """Note a fault; one noted before is not noted twice."""
        self.found.setdefault(Fault(place, path, message))

    def within(self, path: str) -> bool:
        """Whether a fault was noted at a path or below it."""
        return any(f"{fault.path}.".startswith(f"{path}.") for fault in self.found)

    def check(self, title: str) -> None:
        """Stop if there are faults.

        Raises:
            RecipeFaults: with all of them.
        """
        if self.found:
            ordered = sorted(self.found, key=lambda fault: (fault.place.file, fault.place.line))
            raise RecipeFaults(title, tuple(ordered))


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that a mistyped name most likely meant."""
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def hint(name: str, choices: Iterable[str]) -> str:
    """What to add to a message about an unknown name."""
    known = sorted(choices)
    close = nearest(name, known)
    if close is not None:
        return f"; did you mean {close!r}?"
    if not known:
        return "; there is none"
    listed = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"; there is {listed}"


def shown(value: object) -> str:
    """A value as messages show it: in Python's notation, cut to a line's length."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
