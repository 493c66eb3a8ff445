"""Rules between the sources of a recipe and how they are mixed."""

from typing import Any

from ssl_scale.recipe.entry import Entry
from ssl_scale.recipe.faults import Faults


def check_mixture(root: Entry, faults: Faults) -> None:
    """Note what cannot be mixed as it is asked for."""
    unit = root.at("data", "mixture", "unit")
    if _value(root.at("data", "per_step")) != "all":
        return
    if unit is not None and unit.value is not None:
        what = (
            f"must not be given beside data.per_step: all, whose parts are fixed, but is "
            f"{unit.value!r}; leave one of the two out"
        )
        faults.add(unit.place, "data.mixture.unit", what)
    for name, source in sources_of(root).items():
        weight = source.at("weight")
        if weight is not None and weight.is_mapping:
            what = (
                "must be a number where data.per_step is all, whose parts are fixed, but is a "
                "schedule; leave per_step out, and write data.mixture: {unit: sample}"
            )
            faults.add(weight.place, f"data.sources.{name}.weight", what)


def sources_of(root: Entry) -> dict[str, Entry]:
    """The training sources, as they are written."""
    sources = root.at("data", "sources")
    if sources is None or not sources.is_mapping:
        return {}
    return {name: entry for name, entry in sources.items.items() if entry.is_mapping}


def _value(entry: Entry | None) -> Any:
    return entry.value if entry is not None and entry.is_scalar else None
