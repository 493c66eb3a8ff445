"""A single part from plain data, outside of a recipe: what an exported encoder's config holds."""

from collections.abc import Mapping
from typing import TypeVar

from ssl_scale.part import Part, Spec
from ssl_scale.recipe.checking import Checker
from ssl_scale.recipe.entry import Entry
from ssl_scale.recipe.faults import Faults
from ssl_scale.recipe.rooms import room_of

P = TypeVar("P", bound=Part)


def read_part(
    base: type[P], entry: Entry, path: str, bindings: Mapping[str, str] | None = None
) -> Spec[P]:
    """Check a part's entry against its constructor.

    Args:
        base: the kind of part that it must be.
        entry: ``{type: ..., arguments}``, with its place in a file.
        path: what messages call it.
        bindings: role -> path.

    Raises:
        RecipeError: the entry is not such a part; the message holds every fault.
    """
    faults = Faults()
    spec: Spec[P] = Checker(faults, bindings or {}).spec(base, entry, path, room_of(base))
    faults.check(path)
    return spec
