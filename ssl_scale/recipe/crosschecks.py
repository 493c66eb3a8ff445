"""Rules between the entries of a recipe, checked on names and specs, before anything is built."""

from collections.abc import Iterator
from typing import Any

from ssl_scale.part import annotations_of
from ssl_scale.recipe.annotations import sections_named
from ssl_scale.recipe.checking import Checker, Mention
from ssl_scale.recipe.entry import Entry
from ssl_scale.recipe.faults import hint, shown
from ssl_scale.recipe.mixture_checks import check_mixture
from ssl_scale.recipe.warm_start_checks import check_warm_starts
from ssl_scale.recipe.zero_checks import check_zero


class CrossChecks:
    """Looks at one recipe as a whole.

    Args:
        root: the merged recipe.
        checker: what the walk over it has found.
    """

    def __init__(self, root: Entry, checker: Checker) -> None:
        self.root, self.checker, self.faults = root, checker, checker.faults

    def run(self) -> None:
        """Note every fault."""
        self._names()
        self._length()
        self._micro_batches()
        check_mixture(self.root, self.checker)
        check_warm_starts(self.root, self.checker)
        check_zero(self.root, self.checker)
        self._teachers()
        self._masks()
        self._feeds()
        for name in self._section("objectives"):
            self._views_of(name)

    def _section(self, path: str) -> dict[str, Entry]:
        found = self.root.at(*path.split("."))
        items = found.items if found else {}
        return {name: entry for name, entry in items.items() if entry.value is not None}

    def _names(self) -> None:
        """Every name that is mentioned must be there; roles are bound elsewhere."""
        for mention in self.checker.mentions:
            known = self._section(mention.section)
            if mention.section != "paths" and mention.name not in known:
                what = f"{mention.section} has no {mention.name!r}{hint(mention.name, known)}"
                self.faults.add(mention.place, mention.path, what)

    def _length(self) -> None:
        train = self.root.at("train")
        if train is None or not train.is_mapping:
            return
        written = [name for name in ("steps", "epochs") if _value(train.at(name)) is not None]
        if len(written) != 1:
            what = "both are" if written else "neither is"
            self.faults.add(
                train.place, "train", f"must have either steps or epochs, but {what} given"
            )

    def _micro_batches(self) -> None:
        entry = self.root.at("train", "accumulate")
        accumulate, batch = _value(entry), _value(self.root.at("data", "global_batch"))
        if entry is None or not isinstance(accumulate, int) or accumulate < 2:
            return
        if isinstance(batch, int) and batch % accumulate:
            what = f"must divide data.global_batch, {batch}, but is {accumulate}"
            self.faults.add(entry.place, "train.accumulate", what)
        for name in self._section("objectives"):
            part = self._comparing(f"objectives.{name}")
            if part is not None:
                what = (
                    f"must be 1, but is {accumulate}: objectives.{name} ({part.__name__}) "
                    "compares the samples of a batch with each other, and would compare fewer of "
                    "them in micro-batches"
                )
                self.faults.add(entry.place, "train.accumulate", what)

    def _comparing(self, path: str) -> type | None:
        """An objective, or a part of it, that looks at a batch's samples together."""
        for at, spec in self.checker.specs.items():
            if f"{at}.".startswith(f"{path}.") and getattr(spec.part, "pairs", False):
                return spec.part
        return None

    def _teachers(self) -> None:
        """An objective that names no teacher means the only one."""
        teachers = self._section("teachers")
        for name, entry in self._section("objectives").items():
            spec = self.checker.specs.get(f"objectives.{name}")
            if spec is None or len(teachers) == 1:
                continue
            for argument in _arguments_naming("teachers", spec.part):
                if spec.arguments.get(argument) is None and entry.at(argument) is None:
                    what = f"must name a teacher{hint('', teachers)}"
                    self.faults.add(entry.place, f"objectives.{name}.{argument}", what)

    def _masks(self) -> None:
        """A mask that names no encoder means the one named like its view."""
        encoders = self._section("encoders")
        for name, entry in self._section("masks").items():
            view = _value(entry.at("view"))
            if isinstance(view, str) and entry.at("encoder") is None and view not in encoders:
                what = f"must be named, for encoders has no {view!r}, named like the view" + hint(
                    view, encoders
                )
                self.faults.add(entry.place, f"masks.{name}.encoder", what)

    def _feeds(self) -> None:
        """Every objective must be fed."""
        feeds = [
            mention
            for mention in self.checker.mentions
            if mention.section == "objectives" and mention.path.startswith("data.sources.")
        ]
        objectives = self._section("objectives")
        # A misspelt or malformed `feeds` is reported itself; what it meant to feed is not known.
        sources = self._section("data.sources")
        unclear = (
            not sources
            or any(mention.name not in objectives for mention in feeds)
            or any(
                self.faults.within(f"data.sources.{name}{rest}")
                for name in sources
                for rest in (".feeds", ".feeds[0]")
            )
        )
        fed = {mention.name for mention in feeds}
        for name, entry in objectives.items():
            if name not in fed and not unclear:
                what = "must be fed by a source, but no source under data.sources feeds it"
                self.faults.add(entry.place, f"objectives.{name}", what)

    def _mentions_below(self, path: str, section: str) -> Iterator[Mention]:
        for mention in self.checker.mentions:
            if mention.section == section and mention.path.startswith(f"{path}."):
                yield mention

    def _views_of(self, objective: str) -> None:
        """The sources that feed an objective must hold the fields that its views show."""
        path = f"objectives.{objective}"
        views = {mention.name: mention for mention in self._mentions_below(path, "views")}
        for mask in self._mentions_below(path, "masks"):
            view = _value(self.root.at("masks", mask.name, "view"))
            if isinstance(view, str):
                views[view] = mask
        if not views:
            views = {m.name: m for m in self._mentions_below(path, "encoders")}
            self._defaults_exist(views)
        fields = {mention.name for mention in self._mentions_below(path, "data.fields")}
        for view in views:
            fields |= {m.name for m in self._mentions_below(f"views.{view}", "data.fields")}
        for section in ("sources", "validation"):
            for source, entry in self._section(f"data.{section}").items():
                if objective in _values(entry.at("feeds")):
                    self._holds(entry, f"data.{section}.{source}", sorted(fields), objective)

    def _defaults_exist(self, views: dict[str, Mention]) -> None:
        known = self._section("views")
        for name, mention in views.items():
            if name not in known and name in self._section("encoders"):
                what = (
                    f"reads the view {name!r}, named like its encoder, but views has no {name!r}; "
                    f"add it, or name another{hint(name, known)}"
                )
                self.faults.add(mention.place, mention.path, what)

    def _holds(self, source: Entry, path: str, fields: list[str], objective: str) -> None:
        entry = source.at("fields")
        held = _values(entry)
        for name in fields:
            if (
                entry is not None
                and held
                and name not in held
                and name in self._section("data.fields")
            ):
                what = (
                    f"must hold {name!r}, which objectives.{objective} reads, but is {shown(held)}"
                )
                self.faults.add(entry.place, f"{path}.fields", what)


def _value(entry: Entry | None) -> Any:
    return entry.value if entry is not None and entry.is_scalar else None


def _values(entry: Entry | None) -> list[Any]:
    return [inner.value for inner in entry.value] if entry and isinstance(entry.value, list) else []


def _arguments_naming(section: str, part: type) -> list[str]:
    """Arguments of a part that may name an entry of a section."""
    return [
        name
        for name, annotation in annotations_of(part).items()
        if section in sections_named(annotation)
    ]
