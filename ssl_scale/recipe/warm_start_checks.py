"""Rules about what starts from where: the parts are there, and each starts from one thing."""

from collections.abc import Iterator

from ssl_scale.recipe.checking import Checker
from ssl_scale.recipe.entry import Entry
from ssl_scale.recipe.faults import hint

SECTIONS = ("encoders", "heads", "objectives")


def check_warm_starts(root: Entry, checker: Checker) -> None:
    """Note parts that are not there, and such as would start from two things."""
    taken: dict[str, str] = {}
    for section, name, entry in _named(root, "encoders"):
        own = entry.at("init_from")
        if own is not None and own.value is not None:
            taken[f"{section}.{name}"] = f"encoders.{name}.init_from"
    for path, entry in _parts(root):
        part = entry.value
        if not isinstance(part, str):
            continue  # noted already
        known = [
            f"{section}.{name}" for section in SECTIONS for _, name, _ in _named(root, section)
        ]
        if not any(_is_inside(part, one) for one in known):
            what = "must be encoders.NAME, heads.NAME, objectives.NAME or inside of one, but is "
            checker.faults.add(entry.place, path, f"{what}{part!r}{hint(part, known)}")
        for other, where in taken.items():
            if _is_inside(part, other) or _is_inside(other, part):
                what = f"{part!r} must start from one thing, but {where} is about {other!r} too"
                checker.faults.add(entry.place, path, what)
        taken[part] = path


def _named(root: Entry, section: str) -> Iterator[tuple[str, str, Entry]]:
    found = root.at(section)
    for name, entry in (found.items if found else {}).items():
        if entry.value is not None:
            yield section, name, entry


def _parts(root: Entry) -> Iterator[tuple[str, Entry]]:
    starts = root.at("init_from")
    for number, start in enumerate(_items(starts)):
        for place, entry in enumerate(_items(start.at("parts"))):
            yield f"init_from[{number}].parts[{place}]", entry


def _items(entry: Entry | None) -> list[Entry]:
    return entry.value if entry is not None and isinstance(entry.value, list) else []


def _is_inside(part: str, other: str) -> bool:
    return f"{part}.".startswith(f"{other}.")
