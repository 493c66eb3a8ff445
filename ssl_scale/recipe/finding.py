"""Where recipes are: shipped ones by name from any folder, the user's own by path."""

import os
from importlib.resources import files
from pathlib import Path

from ssl_scale.errors import RecipeError
from ssl_scale.recipe.faults import hint

PACKAGE = "ssl_scale_recipes"
_NOT_RECIPES = ("_base", "results")


def shipped_folder() -> Path:
    """The folder of the recipes that are installed with the package."""
    return Path(str(files(PACKAGE)))


def is_base(path: Path) -> bool:
    """Whether a recipe only serves others to extend."""
    return path.parent.name == "_base"


def list_recipes() -> list[str]:
    """Names of all shipped recipes, without those that never run alone."""
    folder = shipped_folder()
    found = (path for path in folder.rglob("*.yaml") if path.parent.name not in _NOT_RECIPES)
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in found)


def find_recipe(name: str | os.PathLike[str]) -> Path:
    """The file of a recipe.

    Args:
        name: of a shipped recipe (``vision/simclr``), a YAML file, or a run's folder.

    Raises:
        RecipeError: there is none; the message lists the nearest.
    """
    text = os.fspath(name)
    shipped = shipped_folder() / f"{text}.yaml"
    if not os.path.isabs(text) and shipped.is_file():
        return shipped
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    raise RecipeError(
        f"recipe must be a YAML file, a run's folder or a shipped recipe's name, "
        f"but is {text!r}{hint(text.removesuffix('.yaml'), list_recipes())}"
    )


def recipe_name(path: Path) -> str:
    """What a recipe is called: its name if it is shipped, else its file's name."""
    folder = shipped_folder().resolve()
    whole = path.resolve()
    if whole.is_relative_to(folder):
        return whole.relative_to(folder).with_suffix("").as_posix()
    return path.stem


def shown_path(path: Path) -> str:
    """A path as messages show it: from the working directory, if it lies below."""
    whole = path.resolve()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)
