"""The systems that shipped recipes implement, read off the recipes and the results kept beside."""

from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from ssl_scale.errors import RecipeError
from ssl_scale.recipe.finding import list_recipes, shipped_folder
from ssl_scale.recipe.provenance import Provenance
from ssl_scale.recipe.reading import read_recipe


@dataclass(frozen=True)
class ListedSystem:
    """A recipe that implements a published system.

    Args:
        recipe: its name.
        system: what it implements.
        encoders: types of its parts, by name; so for the next.
        objectives: losses.
        teachers: where targets come from.
        masks: what is hidden.
        optimizer: type.
        sources: data roles that a user binds.
        measured: figures of this recipe, by name, from ``results/*.yaml`` beside the recipes.
    """

    recipe: str
    system: Provenance
    encoders: dict[str, str]
    objectives: dict[str, str]
    teachers: dict[str, str]
    masks: dict[str, str]
    optimizer: str
    sources: tuple[str, ...]
    measured: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)


def list_systems() -> list[ListedSystem]:
    """All of them, in the order of their names.

    Raises:
        RecipeError: a shipped recipe or a results file is broken.
    """
    measured = read_results()
    known = list_recipes()
    if lost := sorted(set(measured) - set(known)):
        raise RecipeError(f"results must belong to shipped recipes, but there is no {lost[0]!r}")
    listed = (_describe(name, measured.get(name, {})) for name in known)
    return [system for system in listed if system is not None]


def read_results() -> dict[str, dict[str, Any]]:
    """Recipe -> its measured figures."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted((shipped_folder() / "results").glob("*.yaml")):
        found |= yaml.safe_load(file.read_text()) or {}
    return found


def _describe(name: str, measured: dict[str, Any]) -> ListedSystem | None:
    recipe = read_recipe(name, require_data=False)
    if recipe.system is None:
        return None
    return ListedSystem(
        recipe=name,
        system=recipe.system,
        encoders={key: entry.spec.part.__name__ for key, entry in recipe.encoders.items()},
        objectives={key: entry.spec.part.__name__ for key, entry in recipe.objectives.items()},
        teachers={key: spec.part.__name__ for key, spec in recipe.teachers.items()},
        masks={key: mask.spec.part.__name__ for key, mask in recipe.masks.items()},
        optimizer=recipe.optim.part.__name__,
        sources=tuple(dict.fromkeys(source.role for source in recipe.data.sources.values())),
        measured=measured,
    )
