"""Rules between the sources of a recipe and how they are mixed and put together."""

from typing import Any

from ssl_scale.recipe.checking import Checker
from ssl_scale.recipe.entry import Entry
from ssl_scale.recipe.learned_plan import LearnedPlan


def check_mixture(root: Entry, checker: Checker) -> None:
    """Note what cannot be mixed, or put together by tokens, as it is asked for."""
    checks = _MixtureChecks(root, checker)
    if checks.value("data", "per_step") == "all":
        checks.fixed_parts()
    checks.lengths()
    checks.learned()
    if checks.value("train", "guard", "spike") is not None:
        checks.passed_over()
    for name, source in checks.sources.items():
        if _scalar(source.at("lengths")) is not None:
            checks.micro_batches(name, source)
        if _scalar(source.at("pack")) is True:
            checks.packed(name, source)


class _MixtureChecks:
    """One walk over one recipe."""

    def __init__(self, root: Entry, checker: Checker) -> None:
        self.root, self.checker, self.faults = root, checker, checker.faults
        sources = root.at("data", "sources")
        items = sources.items if sources is not None and sources.is_mapping else {}
        self.sources = {name: entry for name, entry in items.items() if entry.is_mapping}

    def value(self, *path: str) -> Any:
        return _scalar(self.root.at(*path))

    def fixed_parts(self) -> None:
        """Where all sources share each step, there is nothing to draw."""
        unit = self.root.at("data", "mixture", "unit")
        if unit is not None and unit.value is not None:
            what = (
                f"must not be given beside data.per_step: all, whose parts are fixed, but is "
                f"{unit.value!r}; leave one of the two out"
            )
            self.faults.add(unit.place, "data.mixture.unit", what)
        for name, source in self.sources.items():
            weight = source.at("weight")
            if weight is not None and weight.is_mapping:
                what = (
                    "must be a number where data.per_step is all, whose parts are fixed, but is a "
                    "schedule; leave per_step out, and write data.mixture: {unit: sample}"
                )
                self.faults.add(weight.place, f"data.sources.{name}.weight", what)

    def learned(self) -> None:
        """Weights are learned over rounds, of sources that are drawn in turn and go on for ever."""
        learned = self.root.at("data", "mixture", "learned")
        if learned is None or not learned.is_mapping:
            return
        path, place = "data.mixture.learned", learned.place
        if self.value("data", "per_step") == "all":
            what = (
                "must not be given beside data.per_step: all, whose parts are fixed; leave "
                "per_step out, and write data.mixture.unit: sample"
            )
            self.faults.add(place, path, what)
        if len(self.sources) < 2:
            self.faults.add(place, path, f"needs two sources, but there is {len(self.sources)}")
        self._rounds(learned)
        self._references(learned)
        for name, source in self.sources.items():
            end, weight = source.at("end"), source.at("weight")
            if end is not None and end.value not in (None, "repeat"):
                what = f"must be 'repeat' where weights are learned, but is {end.value!r}"
                self.faults.add(end.place, f"data.sources.{name}.end", what)
            if weight is not None and weight.is_mapping:
                what = "must be a number where weights are learned from it on, but is a schedule"
                self.faults.add(weight.place, f"data.sources.{name}.weight", what)

    def passed_over(self) -> None:
        """A run that goes back reads on: more than its number of steps, as weights foresee it."""
        learned = self.root.at("data", "mixture", "learned")
        if learned is not None and learned.is_mapping:
            what = (
                "must not be given where a spike may send the run back (train.guard.spike), since "
                "what was learned meanwhile cannot be unlearned; leave one of the two out"
            )
            self.faults.add(learned.place, "data.mixture.learned", what)
        for name, source in self.sources.items():
            end = source.at("end")
            if end is not None and end.value not in (None, "repeat"):
                what = (
                    "must be 'repeat' where a spike may send the run back (train.guard.spike), "
                    f"since batches that are passed over would be missing at the end, but is "
                    f"{end.value!r}"
                )
                self.faults.add(end.place, f"data.sources.{name}.end", what)

    def _rounds(self, learned: Entry) -> None:
        """What is learned in a round acts in the one after the next."""
        every, steps = _scalar(learned.at("every")), self.value("train", "steps")
        default = LearnedPlan.__dataclass_fields__["every"].default
        every = default if every is None else every
        if not isinstance(every, int) or every < 1:
            return  # noted already
        entry = learned.at("every") or learned
        if isinstance(steps, int) and 2 * every >= steps:
            what = (
                f"must be below half of train.steps, {steps}, or nothing that is learned comes "
                f"into force, but is {every}"
            )
            self.faults.add(entry.place, "data.mixture.learned.every", what)
        is_by_batch = self.value("data", "mixture", "unit") in (None, "batch")
        if is_by_batch and every < len(self.sources):
            what = (
                f"must be at least the number of sources, {len(self.sources)}, since each step "
                f"draws one (data.mixture.unit: batch), but is {every}"
            )
            self.faults.add(entry.place, "data.mixture.learned.every", what)

    def _references(self, learned: Entry) -> None:
        references = learned.at("references")
        if references is None or not references.is_mapping:
            return
        for name in sorted(self.sources.keys() - references.items.keys()):
            what = f"must give source {name!r} the loss that it should come down to"
            self.faults.add(references.place, "data.mixture.learned.references", what)

    def lengths(self) -> None:
        """Weights of tokens and micro-batches by tokens need lengths."""
        have = [name for name, entry in self.sources.items() if _scalar(entry.at("lengths"))]
        if self.value("data", "mixture", "unit") == "token":
            for name in self.sources.keys() - {*have}:
                what = (
                    "must name the field that tokens are counted in, since data.mixture.unit is "
                    "token; `ssl-data lengths` counts them"
                )
                self.faults.add(self.sources[name].place, f"data.sources.{name}.lengths", what)
        limit = self.root.at("data", "max_tokens")
        if limit is not None and limit.value is not None and not have:
            what = "has no effect: no source under data.sources names the field of its `lengths`"
            self.faults.add(limit.place, "data.max_tokens", what)

    def micro_batches(self, name: str, source: Entry) -> None:
        """The field has lengths, of at most a micro-batch, and nobody compares across them."""
        field, entry = _scalar(source.at("lengths")), source.at("lengths")
        assert entry is not None
        path = f"data.sources.{name}.lengths"
        held = source.at("fields")
        names = (
            [inner.value for inner in held.value] if held and isinstance(held.value, list) else []
        )
        spec = self.checker.specs.get(f"data.fields.{field}")
        if field not in names:
            what = f"must be one of the source's fields, {names}, but is {field!r}"
            self.faults.add(entry.place, path, what)
        elif spec is not None and not hasattr(spec.part, "lengths_of"):
            what = (
                f"must be a field of texts, sounds or arrays, but {field!r} is a "
                f"{spec.part.__name__}"
            )
            self.faults.add(entry.place, path, what)
        limit = self.value("data", "max_tokens")
        if spec is None or not isinstance(limit, int):
            return
        longest = spec.arguments.get("max_tokens", 0)
        if longest > limit:
            what = f"must be at least the {longest} tokens of field {field!r}, but is {limit}"
            self.faults.add(self._place("data", "max_tokens"), "data.max_tokens", what)
        for objective in self._fed(source):
            for path_of, part in self.checker.specs.items():
                is_own = f"{path_of}.".startswith(f"objectives.{objective}.")
                if is_own and getattr(part.part, "pairs", False):
                    what = (
                        f"must not be given beside data.max_tokens: objectives.{objective} "
                        f"({part.part.__name__}) compares the samples of a batch with each other, "
                        "and would compare fewer of them in micro-batches"
                    )
                    self.faults.add(entry.place, path, what)

    def packed(self, name: str, source: Entry) -> None:
        """Packed samples go to whoever keeps them apart."""
        path, place = f"data.sources.{name}.pack", self._at(source, "pack").place
        for key, has in (
            (f"data.sources.{name}.lengths", _scalar(source.at("lengths"))),
            ("data.max_tokens", self.value("data", "max_tokens")),
        ):
            if has is None:
                self.faults.add(place, path, f"needs {key}, but that is not given")
        for objective in self._fed(source):
            spec = self.checker.specs.get(f"objectives.{objective}")
            if spec is not None and not getattr(spec.part, "takes_packed", False):
                what = (
                    f"must be false: objectives.{objective} ({spec.part.__name__}) reads samples "
                    "in rows of their own"
                )
                self.faults.add(place, path, what)
            self._encoders_keep_apart(objective, path, place)

    def _encoders_keep_apart(self, objective: str, path: str, place: Any) -> None:
        for mention in self.checker.mentions:
            if mention.section != "encoders":
                continue
            if not f"{mention.path}.".startswith(f"objectives.{objective}."):
                continue
            spec = self.checker.specs.get(f"encoders.{mention.name}")
            if spec is not None and not getattr(spec.part, "takes_packed", False):
                what = (
                    f"must be false: encoders.{mention.name} ({spec.part.__name__}) would let the "
                    "samples see each other"
                )
                self.faults.add(place, path, what)

    def _fed(self, source: Entry) -> list[str]:
        feeds = source.at("feeds")
        return [e.value for e in feeds.value] if feeds and isinstance(feeds.value, list) else []

    def _place(self, *path: str) -> Any:
        return self._at(self.root, *path).place

    def _at(self, entry: Entry, *path: str) -> Entry:
        found = entry.at(*path)
        assert found is not None
        return found


def _scalar(entry: Entry | None) -> Any:
    return entry.value if entry is not None and entry.is_scalar else None
