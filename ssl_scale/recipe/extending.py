"""``extends``: a recipe file with everything it inherits, merged into one tree."""

from pathlib import Path

from ssl_scale.recipe.entry import Entry, kind
from ssl_scale.recipe.faults import Faults, Place, hint
from ssl_scale.recipe.finding import list_recipes, shipped_folder, shown_path
from ssl_scale.recipe.loading import load
from ssl_scale.recipe.overlay import overlay

MAX_DEPTH = 2


def read_extended(path: Path, faults: Faults, below: tuple[Path, ...] = ()) -> Entry:
    """Read a recipe file and what it extends.

    Args:
        path: the file.
        faults: takes what is wrong with the ``extends`` entries.
        below: files that extend this one, the recipe itself first.

    Raises:
        RecipeError: a file is not YAML.
    """
    name = shown_path(path)
    root = load(path.read_bytes(), name)
    if not root.is_mapping:
        faults.add(root.place, "", f"a recipe must be a mapping, but is {kind(root)}")
        return Entry({}, Place(name, 1))
    merged = Entry({}, Place(name, 1))
    for parent in _parents(root, faults):
        found = _find(parent, path)
        chain = (*below, path.resolve())
        if found is None:
            faults.add(
                parent.place,
                "extends",
                f"{parent.value!r} is neither a file beside this "
                f"one nor a shipped recipe{hint(str(parent.value), _names())}",
            )
        elif found.resolve() in chain:
            faults.add(parent.place, "extends", f"{parent.value!r} extends this recipe in turn")
        elif len(chain) > MAX_DEPTH:
            faults.add(
                parent.place,
                "extends",
                f"must be at most {MAX_DEPTH} deep, but "
                f"{parent.value!r} is reached at depth {len(chain)}",
            )
        else:
            inherited = read_extended(found, faults, chain)
            merged = overlay(merged, _without(inherited, "name"))
    return Entry(overlay(merged, _without(root, "extends")).value, Place(name, 1))


def _parents(root: Entry, faults: Faults) -> list[Entry]:
    entry = root.at("extends")
    if entry is None:
        return []
    parents = entry.value if isinstance(entry.value, list) else [entry]
    for parent in parents:
        if not isinstance(parent.value, str):
            faults.add(parent.place, "extends", f"must be a file or a list, but is {kind(parent)}")
    return [parent for parent in parents if isinstance(parent.value, str)]


def _find(parent: Entry, path: Path) -> Path | None:
    name = str(parent.value)
    places = (
        path.parent / name,
        path.parent / f"{name}.yaml",
        shipped_folder() / f"{name}.yaml",
        shipped_folder() / name,
    )
    return next((place for place in places if place.is_file()), None)


def _names() -> list[str]:
    bases = (path for path in shipped_folder().rglob("_base/*.yaml"))
    return [*list_recipes(), *(str(path.relative_to(shipped_folder())) for path in bases)]


def _without(entry: Entry, name: str) -> Entry:
    return Entry({key: inner for key, inner in entry.items.items() if key != name}, entry.place)
