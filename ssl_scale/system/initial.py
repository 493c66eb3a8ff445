"""The weights that encoders start from, and a report of what became of them.

Values are written piece by piece, so that under ZeRO-3 no rank holds more than one whole tensor.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from ssl_scale import dist
from ssl_scale.encoders.released import match
from ssl_scale.errors import SslScaleError
from ssl_scale.recipe.init_from import InitFrom
from ssl_scale.sharding import full_shape, refresh_persistent, write_whole
from ssl_scale.system.pretrained_folder import encoder_file
from ssl_scale.system.safetensors_folder import SafetensorsFolder


@dataclass(frozen=True)
class Report:
    """What became of a folder's weights.

    Args:
        folder: where they came from.
        matched: parameters of the encoder that got values.
        missing: those that kept their fresh values.
        left: tensors of the folder that nothing was made of.
        reshaped: those of `matched` that were made from another shape, with both shapes.
        step: of the checkpoint, where it is one.
        teacher: whose copies they are, where they are a teacher's.
    """

    folder: Path
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    left: tuple[str, ...]
    reshaped: tuple[str, ...] = ()
    step: int | None = None
    teacher: str | None = None

    def __str__(self) -> str:
        owner = f" (teacher {self.teacher})" if self.teacher else ""
        reshaped = f"; reshaped: {_some(self.reshaped)}" if self.reshaped else ""
        return (
            f"{len(self.matched)} parameters from {self.folder}{owner}; fresh: "
            f"{_some(self.missing)}; left out: {_some(self.left)}{reshaped}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data, every name spelled out."""
        return {**asdict(self), "folder": str(self.folder)}


def fill_encoder(encoder: nn.Module, plan: InitFrom, name: str, where: str | None = None) -> Report:
    """Give an encoder its first weights.

    Args:
        encoder: is written.
        plan: where they are.
        name: the encoder's, for exports.
        where: in the recipe the plan stands; at the encoder unless told.

    Raises:
        SslScaleError: the weights do not fit, or the folder is none.
    """
    where = where or f"encoders.{name}.init_from"
    folder = Path(plan.hf or plan.exported or "")
    try:
        if plan.hf is not None:
            return _fill(encoder, folder, plan.partial, _released(encoder, folder, plan.partial))
        file = folder / encoder_file(plan.encoder or name)
        return _fill(encoder, folder, plan.partial, _exported(encoder, file))
    except (SslScaleError, ValueError) as error:
        raise SslScaleError(f"{where}: {error}") from error


@dataclass(frozen=True)
class _Found:
    """Values by parameter, as they are read, and the names of the rest."""

    values: Iterator[tuple[str, Tensor]]
    missing: tuple[str, ...]
    left: tuple[str, ...]


def _released(encoder: nn.Module, folder: Path, partial: bool) -> _Found:
    source = SafetensorsFolder(folder)
    found = match(encoder, source.config, source.names)
    if found.skipped and not partial:
        raise SslScaleError(
            f"the encoder must have all blocks of the weights, but there is no place for "
            f"{_some(found.skipped)}; add blocks, or write `partial: true`"
        )
    values = (
        (name, origin.make(*map(source.read, origin.names)))
        for name, origin in found.origins.items()
    )
    return _Found(values, found.missing, found.left)


def _exported(encoder: nn.Module, file: Path) -> _Found:
    if not file.is_file():
        raise SslScaleError(
            f"{file} must be weights that `ssl-scale export` wrote, but there is no such file"
        )
    tensors = load_file(file)
    own = [name for name, _ in encoder.named_parameters()]
    buffers = dict(encoder.named_buffers())
    for name, buffer in buffers.items():
        if name in tensors:
            buffer.copy_(tensors[name])
    values = ((name, tensors[name]) for name in own if name in tensors)
    left = tuple(sorted(tensors.keys() - set(own) - buffers.keys()))
    return _Found(values, tuple(name for name in own if name not in tensors), left)


def _fill(encoder: nn.Module, folder: Path, partial: bool, found: _Found) -> Report:
    if found.missing and not partial:
        raise SslScaleError(
            f"the weights in {folder} must hold all of the encoder, but lack {_some(found.missing)}"
            "; change the encoder's arguments, or write `partial: true` to start these afresh"
        )
    parameters = dict(encoder.named_parameters())
    for name, values in found.values:
        parameter = parameters[name]
        if tuple(values.shape) != full_shape(parameter):
            raise SslScaleError(
                f"{name} must be {list(full_shape(parameter))}, but is {list(values.shape)} in "
                f"{folder}; the encoder's arguments must be those of the weights"
            )
        write_whole(parameter, values, dist.rank())
    refresh_persistent(parameters.values())
    matched = tuple(name for name in parameters if name not in found.missing)
    return Report(folder, matched, found.missing, found.left)


def _some(names: tuple[str, ...]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
