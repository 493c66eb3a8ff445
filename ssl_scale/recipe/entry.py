"""A YAML value that remembers where it was written."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from ssl_scale.recipe.faults import Place

Scalar: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True)
class Entry:
    """A value and its place.

    Args:
        value: a scalar, a list of entries, or a mapping from names to entries.
        place: of the key, where the value stands in a mapping.
    """

    value: "Scalar | list[Entry] | dict[str, Entry]"
    place: Place

    @property
    def is_mapping(self) -> bool:
        """Whether the value is a mapping."""
        return isinstance(self.value, dict)

    @property
    def is_scalar(self) -> bool:
        """Whether the value is neither mapping nor list."""
        return not isinstance(self.value, dict | list)

    @property
    def items(self) -> "dict[str, Entry]":
        """The entries of a mapping; none for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    def at(self, *names: str) -> "Entry | None":
        """The entry that a path of names leads to."""
        here: Entry | None = self
        for name in names:
            here = here.items.get(name) if here else None
        return here


def plain(entry: Entry) -> Any:
    """The value without places."""
    if isinstance(entry.value, dict):
        return {name: plain(inner) for name, inner in entry.value.items()}
    if isinstance(entry.value, list):
        return [plain(inner) for inner in entry.value]
    return entry.value


def kind(entry: Entry) -> str:
    """How messages call the value."""
    if entry.is_mapping:
        return "a mapping"
    if isinstance(entry.value, list):
        return "a list"
    return "empty" if entry.value is None else repr(entry.value)
