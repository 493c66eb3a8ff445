"""Tensors in a folder as `transformers` saves models: read one by one, never unpickled."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ssl_scale.errors import SslScaleError

CONFIG, WHOLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# TensorFlow's names, which BERT's first weights still have.
_OLD = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


class SafetensorsFolder:
    """A saved model: its configuration, and its tensors by name.

    Args:
        folder: with ``config.json`` and ``model.safetensors`` (or an index of several).

    Raises:
        SslScaleError: a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: Mapping[str, Any] = self._json(CONFIG)
        try:
            self._files = {name: safe_open(folder / name, "pt") for name in self._file_names()}
        except (SafetensorError, OSError) as error:
            raise SslScaleError(f"{folder} must hold safetensors, but: {error}") from error
        self._places = {
            _modern(key): (file, key)
            for file in self._files.values()
            for key in file.keys()  # type: ignore[no-untyped-call]  # noqa: SIM118
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tensors."""
        return tuple(sorted(self._places))

    def read(self, name: str) -> Tensor:
        """One tensor, whole."""
        file, key = self._places[name]
        tensor: Tensor = file.get_tensor(key)  # type: ignore[no-untyped-call]
        return tensor

    def _file_names(self) -> list[str]:
        if (self.folder / INDEX).is_file():
            files = set(self._json(INDEX).get("weight_map", {}).values())
            outside = [name for name in files if Path(name).name != name]
            if outside:
                raise SslScaleError(
                    f"{self.folder / INDEX} must name files beside it, but names {outside[0]!r}"
                )
            return sorted(files)
        if not (self.folder / WHOLE).is_file():
            pickles = sorted(path.name for path in self.folder.glob("*.bin"))
            hint = f"{pickles[0]} is a pickle, which may run code; " if pickles else ""
            raise SslScaleError(
                f"{self.folder} must hold {WHOLE}, but does not; {hint}save the model again with "
                "`save_pretrained`"
            )
        return [WHOLE]

    def _json(self, name: str) -> Mapping[str, Any]:
        path = self.folder / name
        try:
            found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SslScaleError(
                f"{self.folder} must be a folder that transformers' `save_pretrained` wrote, but "
                f"{name} cannot be read ({error})"
            ) from error
        except ValueError as error:
            raise SslScaleError(f"{path} must be JSON, but is not: {error}") from error
        return found


def _modern(name: str) -> str:
    for old, new in _OLD.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
