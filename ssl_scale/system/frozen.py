"""What a frozen teacher is made of: encoders of an export, or a model of `transformers`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ssl_scale.encoders.encoder import Encoder
from ssl_scale.errors import RecipeError, SslScaleError
from ssl_scale.part import Spec
from ssl_scale.recipe.init_from import InitFrom
from ssl_scale.recipe.rooms import find_part, room_of
from ssl_scale.system.initial import fill_encoder
from ssl_scale.system.pretrained import encoder_builders
from ssl_scale.system.pretrained_folder import CONFIG_NAME, FORMAT
from ssl_scale.teachers.frozen import FrozenTeacher


def adopt_frozen(
    teacher: FrozenTeacher, given: Mapping[str, Any], where: str, initial: bool
) -> None:
    """Build a frozen teacher's parts from its folder.

    Args:
        teacher: gets its parts.
        given: run-time values for those who ask.
        where: the teacher's place in the recipe.
        initial: whether to read weights too; not needed where a checkpoint replaces them.

    Raises:
        RecipeError: the folder does not hold what is named.
    """
    folder = Path(teacher.source)
    try:
        if _is_export(folder):
            builders: Mapping[str, Callable[[], nn.Module]] = encoder_builders(folder)
            unknown = sorted(set(teacher.parts) - builders.keys())
            if unknown:
                raise SslScaleError(
                    f"parts must be among {sorted(builders)}, the encoders of {folder}, but there "
                    f"is {unknown[0]!r}"
                )
            teacher.adopt({f"encoders.{name}": builders[name] for name in teacher.parts})
            for name in teacher.parts if initial else ():
                plan = InitFrom(exported=str(folder), encoder=name)
                fill_encoder(teacher.part(f"encoders.{name}"), plan, name, f"{where}.from")
        else:
            teacher.adopt({f"encoders.{_only(teacher)}": lambda: _model(teacher, given)})
    except (SslScaleError, ValueError, OSError) as error:
        raise RecipeError(f"{where}: {error}") from error


def _is_export(folder: Path) -> bool:
    config = folder / CONFIG_NAME
    if not config.is_file():
        raise SslScaleError(
            f"from must be a folder that `ssl-scale export` or transformers' `save_pretrained` "
            f"wrote, but {folder} has no {CONFIG_NAME}; a run is exported first"
        )
    found = json.loads(config.read_text(encoding="utf-8"))
    return isinstance(found, dict) and found.get("format") == FORMAT


def _only(teacher: FrozenTeacher) -> str:
    if len(teacher.parts) != 1:
        raise SslScaleError(
            f"parts must be one name for a model of transformers, but are {list(teacher.parts)}"
        )
    return teacher.parts[0]


def _model(teacher: FrozenTeacher, given: Mapping[str, Any]) -> nn.Module:
    # Looked up by name, since its module takes seconds to import.
    part: type[Any] = find_part("HFEncoder", Encoder, room_of(Encoder))
    arguments = {"folder": teacher.source, "frozen": True, "pool": teacher.pool}
    built: nn.Module = Spec[Any](part, arguments).build(**given)
    return built
