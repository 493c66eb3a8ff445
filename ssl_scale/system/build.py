"""From a checked recipe to a `System`: builds every part and hands out run-time values."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from ssl_scale.data.decoding import FieldDecoder, LabelField
from ssl_scale.data.text_field import TextField
from ssl_scale.errors import RecipeError
from ssl_scale.objectives.objective import Objective
from ssl_scale.part import Spec, annotations_of
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.system.frozen import adopt_frozen
from ssl_scale.system.initial import Report, fill_encoder
from ssl_scale.system.system import NamedMask, System, Terms
from ssl_scale.system.warm_start import start_parts
from ssl_scale.teachers.frozen import FrozenTeacher
from ssl_scale.teachers.teacher import Teacher

_log = logging.getLogger(__name__)


def build_fields(recipe: Recipe) -> dict[str, FieldDecoder]:
    """Every field's decoder, by name; tokenizers are opened here."""
    paths = dict(recipe.paths)
    return {name: spec.build(paths=paths) for name, spec in recipe.data.fields.items()}


def build_system(
    recipe: Recipe,
    dtype: torch.dtype = torch.float32,
    initial: bool = True,
    sizes: Mapping[str, Any] | None = None,
) -> System:
    """Build all parts of a recipe, in its order; values are drawn from torch's global generator.

    Args:
        recipe: a checked recipe with its data bound (text fields need their tokenizer).
        dtype: of floating-point views.
        initial: whether parts take the weights that the recipe lets them start from; not needed
            where a checkpoint replaces them.
        sizes: run-time values that the fields decide; the fields are built to ask them unless told.

    Raises:
        RecipeError: parts do not fit together.
    """
    given = _vocabulary(recipe) if sizes is None else dict(sizes)
    encoders = {name: _build(entry.spec, **given) for name, entry in recipe.encoders.items()}
    started = _start_encoders(recipe, encoders) if initial else {}
    given["widths"] = {name: encoder.width for name, encoder in encoders.items()}
    build_head = {
        name: partial(_build, entry.spec, **given, width=given["widths"][entry.encoder])
        for name, entry in recipe.heads.items()
    }
    heads = {name: build() for name, build in build_head.items()}
    build_objective = partial(_build_objective, given=given, encoders=encoders)
    objectives = {name: build_objective(entry.spec) for name, entry in recipe.objectives.items()}
    teachers: dict[str, Teacher] = {}
    for name, spec in recipe.teachers.items():
        teacher: Teacher = _build(spec)
        teachers[name] = teacher
        if isinstance(teacher, FrozenTeacher):
            _refuse_taught(recipe, objectives, name)
            adopt_frozen(teacher, given, f"teachers.{name}", initial)
            continue
        teacher.adopt(
            {
                f"encoders.{key}": partial(_build, part.spec, **given)
                for key, part in recipe.encoders.items()
                if _is_asked_of_teachers(recipe, key)
            }
            | {f"heads.{key}": build for key, build in build_head.items()}
            | {
                f"objectives.{key}.{head}": partial(_one_head, build_objective, entry.spec, head)
                for key, entry in recipe.objectives.items()
                for head in objectives[key].taught
            }
        )
    feeds = {
        name: tuple(source.feeds)
        for section in (recipe.data.sources, recipe.data.validation)
        for name, source in section.items()
    }
    system = System(
        encoders=encoders,
        objectives=objectives,
        views={name: _build(spec) for name, spec in recipe.views.items()},
        masks={
            name: NamedMask(_build(mask.spec), mask.view, mask.encoder)
            for name, mask in recipe.masks.items()
        },
        heads=heads,
        teachers=teachers,
        terms={
            name: Terms(_build(entry.weight), entry.start, entry.until, entry.absent)
            for name, entry in recipe.objectives.items()
        },
        feeds=feeds,
        dtype=dtype,
    )
    if initial:
        started |= start_parts(system, recipe.init_from)
    for part, report in started.items():
        _log.info("%s starts from %s", part, report)
        system.started[part] = report.to_dict()
    for teacher in teachers.values():
        teacher.copy_student(system)
    return system


def _start_encoders(recipe: Recipe, encoders: Mapping[str, nn.Module]) -> dict[str, Report]:
    return {
        f"encoders.{name}": fill_encoder(encoders[name], entry.init_from, name)
        for name, entry in recipe.encoders.items()
        if entry.init_from is not None
    }


def _build(spec: Spec[Any], **given: Any) -> Any:
    try:
        return spec.build(**given)
    except ValueError as error:
        raise RecipeError(f"{spec.path or spec.part.__name__}: {error}") from error


def _build_objective(
    spec: Spec[Objective], given: Mapping[str, Any], encoders: Mapping[str, nn.Module]
) -> Objective:
    """An objective, told the sizes of the encoder that it reads."""
    told = dict(given)
    encoder = encoders.get(str(spec.arguments.get("encoder")))
    if encoder is not None:
        told["width"] = encoder.width
        for size in ("depth", "patch_values"):
            if hasattr(encoder, size):
                told[size] = getattr(encoder, size)
    objective: Objective = _build(spec, **told)
    return objective


def _refuse_taught(recipe: Recipe, objectives: Mapping[str, Objective], teacher: str) -> None:
    """A frozen teacher has no copy of an objective's own heads."""
    for key, entry in recipe.objectives.items():
        asked = entry.spec.arguments.get("teacher") or next(iter(recipe.teachers))
        if objectives[key].taught and asked == teacher:
            raise RecipeError(
                f"objectives.{key}.teacher: must hold copies of {sorted(objectives[key].taught)}, "
                f"but {teacher!r} is frozen; name one that follows the student"
            )


def _one_head(
    build_objective: Callable[[Spec[Objective]], Objective], spec: Spec[Objective], head: str
) -> nn.Module:
    """A second copy of an objective's head: the objective is built again and the rest let go."""
    built: nn.Module = getattr(build_objective(spec), head)
    return built


def _is_asked_of_teachers(recipe: Recipe, encoder: str) -> bool:
    """Whether some objective that has a teacher reads the encoder."""
    return any(
        (entry.spec.part.taught or "teacher" in annotations_of(entry.spec.part))
        and encoder == entry.spec.arguments.get("encoder")
        for entry in recipe.objectives.values()
    )


def _vocabulary(recipe: Recipe) -> dict[str, Any]:
    """Run-time values that the fields decide."""
    fields = build_fields(recipe)
    texts = {name: field for name, field in fields.items() if isinstance(field, TextField)}
    given: dict[str, Any] = {
        "classes": {
            name: field.num_classes
            for name, field in fields.items()
            if isinstance(field, LabelField)
        }
    }
    if texts:
        files = {str(field.path) for field in texts.values()}
        if len(files) > 1:
            raise RecipeError(
                f"data.fields: {sorted(texts)} must share one tokenizer, but use {sorted(files)}"
            )
        text = next(iter(texts.values()))
        given |= {"vocab_size": text.vocab_size, "mask_token": text.token_id("[MASK]")}
    return given
