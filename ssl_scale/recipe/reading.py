"""From a recipe's name to a checked `Recipe`: the one entry to this room."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ssl_scale.errors import RecipeError, UnboundDataError
from ssl_scale.recipe.binding import is_path, path_of, read_bindings, user_file
from ssl_scale.recipe.checking import Checker
from ssl_scale.recipe.crosschecks import CrossChecks
from ssl_scale.recipe.data_plan import SourceSpec, ValidationSpec
from ssl_scale.recipe.entry import Entry, plain
from ssl_scale.recipe.evaluation_plan import EvaluationData, EvaluationPlan
from ssl_scale.recipe.extending import read_extended
from ssl_scale.recipe.faults import Faults, Place, RecipeFaults, hint
from ssl_scale.recipe.finding import find_recipe, is_base, recipe_name
from ssl_scale.recipe.overlay import override
from ssl_scale.recipe.recipe import Recipe

S = TypeVar("S", SourceSpec, ValidationSpec, EvaluationData)


def read_recipe(
    name_or_path: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    bindings: Mapping[str, str] | None = None,
    require_data: bool = True,
) -> Recipe:
    """Read and check a recipe; nothing is built.

    Args:
        name_or_path: a shipped recipe's name, a YAML file, or a run's folder.
        overrides: ``path.to.key=value``, laid over the recipe in this order.
        bindings: data role -> path; wins over the recipe's ``paths`` and the user's file.
        require_data: whether roles without a path are an error.

    Raises:
        RecipeError: the recipe cannot work; the message holds every fault.
        UnboundDataError: it can, but data that it names has no path.
    """
    path = find_recipe(name_or_path)
    if is_base(path):
        raise RecipeError(f"{path}: recipes in _base/ never run alone; extend it")
    root, faults = read_merged(path, overrides)
    bound = read_bindings(root, bindings or {}, faults)
    checker = Checker(faults, bound)
    recipe = checker.section(Recipe, root, "")
    CrossChecks(root, checker).run()
    roles = {mention.name for mention in checker.mentions if mention.section == "paths"}
    for role in bindings or {}:
        if role not in roles:
            what = f"nothing in the recipe names this role{hint(role, roles)}"
            faults.add(Place(f"--data {role}"), "", what)
    faults.check(str(name_or_path))
    if require_data:
        _check_bound(str(name_or_path), checker, bound)
    return _finish(recipe, path, root, checker, bound)


def read_roles(
    name_or_path: str | os.PathLike[str], overrides: Iterable[str] = ()
) -> dict[str, list[str]]:
    """The roles that a recipe names, each with the arguments that name it; paths are left out.

    Args:
        name_or_path: a shipped recipe's name, a YAML file, or a run's folder.
        overrides: ``path.to.key=value``, laid over the recipe in this order.

    Raises:
        RecipeError: the recipe cannot work; the message holds every fault.
    """
    root, faults = read_merged(find_recipe(name_or_path), overrides)
    checker = Checker(faults, {})
    checker.section(Recipe, root, "")
    CrossChecks(root, checker).run()
    faults.check(str(name_or_path))
    found: dict[str, list[str]] = {}
    for mention in checker.mentions:
        if mention.section == "paths" and not is_path(mention.name):
            found.setdefault(mention.name, []).append(mention.path)
    return found


def read_merged(path: Path, overrides: Iterable[str]) -> tuple[Entry, Faults]:
    """The recipe with everything it extends and the overrides, not checked yet."""
    faults = Faults()
    root = read_extended(path, faults)
    for text in overrides:
        try:
            root = override(root, text, faults)
        except RecipeFaults as error:
            for fault in error.faults:
                faults.add(fault.place, fault.path, fault.message)
    return root, faults


def _check_bound(title: str, checker: Checker, bound: Mapping[str, str]) -> None:
    unbound = [
        mention
        for mention in checker.mentions
        if mention.section == "paths"
        and not is_path(mention.name)
        and mention.name not in bound
        # Training needs no data to evaluate on; `ssl-scale evaluate` asks for it.
        and not mention.path.startswith("evaluation.")
    ]
    if not unbound:
        return
    lines = [
        f"{mention.place}: {mention.path}: role {mention.name!r} has no path" for mention in unbound
    ]
    roles = list(dict.fromkeys(mention.name for mention in unbound))
    known = f"{hint(roles[0], bound)}" if bound else ""
    raise UnboundDataError(
        "\n".join(
            [
                f"recipe {title} is sound, but data that it names has no path yet",
                *lines,
                f"bind it with {' '.join(f'--data {role}=PATH' for role in roles)}, or once for "
                f"all recipes in {user_file()}{known}",
            ]
        )
    )


def _finish(
    recipe: Recipe, path: Path, root: Entry, checker: Checker, bound: Mapping[str, str]
) -> Recipe:
    """Fill in what is known only now: paths of sources, the name, the recipe as plain data."""
    sources = {
        name: _with_path(source, root.at("data", "sources", name, "data"), bound)
        for name, source in recipe.data.sources.items()
    }
    validation = {
        name: _with_path(source, root.at("data", "validation", name, "data"), bound)
        for name, source in recipe.data.validation.items()
    }
    used = {mention.name for mention in checker.mentions if mention.section == "paths"}
    paths = {role: place for role, place in sorted(bound.items()) if role in used}
    name = recipe.name or recipe_name(path)
    resolved = {
        "name": name,
        **_absolute(root, {m.path for m in checker.mentions if m.section == "paths"}),
    }
    resolved.pop("paths", None)
    if paths:
        resolved["paths"] = paths
    data = replace(recipe.data, sources=sources, validation=validation)
    evaluation = recipe.evaluation and _with_paths(recipe.evaluation, root, bound)
    return replace(
        recipe,
        name=name,
        path=path,
        paths=paths,
        data=data,
        evaluation=evaluation,
        resolved=resolved,
    )


def _with_paths(plan: EvaluationPlan, root: Entry, bound: Mapping[str, str]) -> EvaluationPlan:
    pool = _with_path(plan.pool, root.at("evaluation", "pool", "data"), bound)
    test = _with_path(plan.test, root.at("evaluation", "test", "data"), bound)
    if plan.text is None:
        return replace(plan, pool=pool, test=test)
    text = replace(
        plan.text,
        train=_with_path(plan.text.train, root.at("evaluation", "text", "train", "data"), bound),
        test=_with_path(plan.text.test, root.at("evaluation", "text", "test", "data"), bound),
    )
    return replace(plan, pool=pool, test=test, text=text)


def _with_path(source: S, entry: Entry | None, bound: Mapping[str, str]) -> S:
    assert entry is not None, "a source without data is a fault"
    folder = path_of(entry, bound)
    role = folder if folder is not None and is_path(str(entry.value)) else str(entry.value)
    if folder is not None and source.split is not None:
        folder = f"{folder}/{source.split}"
    return replace(source, role=role, path=folder)


def _absolute(entry: Entry, roles: set[str], path: str = "") -> Any:
    """Plain data in which paths that stand for roles do not depend on the recipe's place."""
    if entry.is_mapping:
        return {
            name: _absolute(inner, roles, f"{path}.{name}" if path else name)
            for name, inner in entry.items.items()
        }
    if isinstance(entry.value, list):
        return [
            _absolute(inner, roles, f"{path}[{place}]") for place, inner in enumerate(entry.value)
        ]
    if path in roles and is_path(str(entry.value)):
        return path_of(entry, {})
    return plain(entry)
