"""Laying one recipe over another, and command-line overrides over both.

Mappings merge by key; ``null`` removes what is inherited; another ``type`` starts the part afresh;
lists and scalars replace.
"""

from ssl_scale.recipe.entry import Entry, kind
from ssl_scale.recipe.faults import Faults, Place
from ssl_scale.recipe.loading import load


def overlay(base: Entry, top: Entry) -> Entry:
    """What results when `top` is laid over `base`."""
    if not (base.is_mapping and top.is_mapping) or _is_another_part(base, top):
        return top
    merged = dict(base.items)
    for name, entry in top.items.items():
        if entry.value is None and name in merged:
            del merged[name]
        else:
            merged[name] = overlay(merged[name], entry) if name in merged else entry
    # A missing key is missed where the mapping stands, not where an override touches it.
    return Entry(merged, top.place if top.place.line else base.place)


def _is_another_part(base: Entry, top: Entry) -> bool:
    before, after = base.at("type"), top.at("type")
    return before is not None and after is not None and before.value != after.value


def override(root: Entry, text: str, faults: Faults) -> Entry:
    """The recipe with one command-line override, ``a.b=value``, laid over it."""
    path, equals, value = text.partition("=")
    place = Place(f"--set {path.strip()}")
    names = path.strip().split(".")
    if not equals or not all(names):
        faults.add(Place(f"--set {text}"), "", "must read path.to.key=value")
        return root
    here: Entry | None = root
    for depth, name in enumerate(names):
        if here is not None and not here.is_mapping and depth:
            before = ".".join(names[:depth])
            faults.add(
                place, path, f"{before} must be a mapping to hold {name!r}, but is {kind(here)}"
            )
            return root
        here = here.at(name) if here else None
    entry = load(value, place.file, line=False)
    for name in reversed(names):
        entry = Entry({name: entry}, place)
    return overlay(root, entry)
