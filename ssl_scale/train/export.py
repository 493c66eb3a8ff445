"""``ssl-scale export``: the encoders of a run, for use without it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ssl_scale.data.text_field import TextField
from ssl_scale.data.views.image import AugmentedImage, ImageView
from ssl_scale.data.views.view import ViewMaker
from ssl_scale.encoders.encoder import Encoder
from ssl_scale.errors import RecipeError
from ssl_scale.objectives.infonce import InfoNCE
from ssl_scale.objectives.sigmoid_contrast import SigmoidContrast
from ssl_scale.part import Spec, annotations_of, is_given
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.system.build import build_fields
from ssl_scale.system.pretrained_folder import (
    TOKENIZER_NAME,
    describe,
    encoder_file,
    projector_file,
    write_pretrained,
)
from ssl_scale.train.trained import Trained, read_trained


def export(
    run_folder: Path,
    output: Path,
    step: int | None = None,
    teacher: str | None = None,
    force: bool = False,
) -> Path:
    """Write a run's encoders, and the heads that compare them, as `ssl_scale.load` reads them.

    Args:
        run_folder: a run's folder.
        output: is made.
        step: of the checkpoint; the newest unless told.
        teacher: whose copies to export in the student's place.
        force: replace an export that is there.
    """
    return export_trained(read_trained(run_folder, step, teacher), output, force)


def export_trained(trained: Trained, output: Path, force: bool = False) -> Path:
    """Write the encoders of a system that is in memory."""
    recipe, system = trained.recipe, trained.system
    encoders = {
        name: _describe_encoder(recipe, name, system.encoder(name)) for name in recipe.encoders
    }
    weights = {encoder_file(name): module.state_dict() for name, module in system.encoders.items()}
    projectors: dict[str, Any] = {}
    for name, objective in system.objectives.items():
        if isinstance(objective, InfoNCE | SigmoidContrast):
            spec = recipe.objectives[name].spec.arguments["projector"]
            projectors[name] = {
                encoder: {"head": describe(spec), "given": {"width": system.encoder(encoder).width}}
                for encoder in objective.between
            }
            weights[projector_file(name)] = objective.projectors.state_dict()
    config = {
        "source": {
            "recipe": recipe.name, "fingerprint": recipe.fingerprint(), "step": trained.step,
        },
        "encoders": encoders,
        "projectors": projectors,
    }  # fmt: skip
    return write_pretrained(output, config, weights, _tokenizer(recipe, encoders), force)


def plain_view(recipe: Recipe, encoder: str) -> Spec[ViewMaker]:
    """The view by which an encoder is looked at from outside: one crop, nothing random.

    The evaluation's view, else the one named like the encoder, else the first that an objective
    shows it; of an augmented image the plain one.

    Raises:
        RecipeError: no view is shown to the encoder.
    """
    plan = recipe.evaluation
    named = [plan.view] if plan and plan.encoder == encoder and plan.view else []
    for name in (*named, encoder, *_views_shown(recipe, encoder)):
        if name in recipe.views:
            return without_augmentation(recipe.views[name])
    raise RecipeError(
        f"{recipe.path}: encoders.{encoder} must be shown a view to be exported, but is shown "
        f"none; add views.{encoder}"
    )


def without_augmentation(spec: Spec[ViewMaker]) -> Spec[ViewMaker]:
    """An augmented image's view as the plain one of the same size; any other view itself."""
    if not issubclass(spec.part, AugmentedImage):
        return spec
    kept = ("field", "size_px", "mean", "std")
    arguments = {name: spec.arguments[name] for name in kept if name in spec.arguments}
    return Spec(ImageView, arguments, spec.path)


def _views_shown(recipe: Recipe, encoder: str) -> Iterator[str]:
    for entry in recipe.objectives.values():
        arguments = entry.spec.arguments
        if encoder in arguments.get("between", ()):
            views = arguments.get("views") or arguments["between"]
            yield views[list(arguments["between"]).index(encoder)]
        if arguments.get("encoder") == encoder and arguments.get("view"):
            yield str(arguments["view"])
    yield from (mask.view for mask in recipe.masks.values() if mask.encoder == encoder)


def _describe_encoder(recipe: Recipe, name: str, module: Encoder) -> dict[str, Any]:
    view = plain_view(recipe, name)
    field = recipe.data.fields[view.arguments["field"]]
    described = describe(field)
    if "tokenizer" in described:
        described["tokenizer"] = TOKENIZER_NAME
    return {
        "encoder": describe(module.portable(recipe.encoders[name].spec)),
        "given": _given_values(recipe.encoders[name].spec, module),
        "view": describe(view),
        "field": described,
    }


def _given_values(spec: Spec[Any], module: nn.Module) -> dict[str, Any]:
    """The run-time values that a part was built with; parts keep them under their names."""
    names = [name for name, hint in annotations_of(spec.part).items() if is_given(hint)]
    return {name: getattr(module, name) for name in names}


def _tokenizer(recipe: Recipe, encoders: Mapping[str, Any]) -> Path | None:
    used = {entry["view"]["field"] for entry in encoders.values()}
    fields = build_fields(recipe)
    paths = [field.path for name in used if isinstance(field := fields[name], TextField)]
    return paths[0] if paths else None
