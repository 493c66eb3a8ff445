"""Encoders in a folder of their own, as ``ssl-scale export`` writes them.

``config.json`` holds, for every encoder, its type with all arguments spelled out (so a later change
of a default changes nothing), the field that decodes its input and the plain view of it; beside it
lie the weights as safetensors and the tokenizer.
"""

import inspect
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ssl_scale.errors import SslScaleError
from ssl_scale.part import Spec, annotations_of, is_given

FORMAT = "ssl-scale-pretrained"
VERSION = 1
CONFIG_NAME = "config.json"
TOKENIZER_NAME = "tokenizer.json"


def write_pretrained(
    folder: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, Mapping[str, Tensor]],
    tokenizer: Path | None = None,
    force: bool = False,
) -> Path:
    """Write an export, whole or not at all.

    Args:
        folder: is made.
        config: ``encoders``, ``projectors`` and ``source`` as `load` reads them.
        weights: file name -> parameter name -> tensor.
        tokenizer: is copied.
        force: replace an export that is there.

    Raises:
        SslScaleError: something is there that must not be replaced.
    """
    folder = Path(folder)
    _check_free(folder, force)
    draft = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        for name, tensors in weights.items():
            whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            save_file(whole, draft / name, metadata={"format": "pt"})
        if tokenizer is not None:
            shutil.copyfile(tokenizer, draft / TOKENIZER_NAME)
        about = {"format": FORMAT, "version": VERSION, **config}
        text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        (draft / CONFIG_NAME).write_text(text, encoding="utf-8")
        mode = (draft / CONFIG_NAME).stat().st_mode
        for path in draft.iterdir():
            path.chmod(mode)  # safetensors makes its files readable to nobody else
            _sync(path)
        _put(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def encoder_file(name: str) -> str:
    """File name of an encoder's weights."""
    return f"encoder.{name}.safetensors"


def projector_file(objective: str) -> str:
    """File name of the weights of an objective's projectors."""
    return f"projectors.{objective}.safetensors"


def describe(spec: Spec[Any]) -> dict[str, Any]:
    """A spec in recipe form, with every default spelled out; run-time values are left out."""
    hints = annotations_of(spec.part)
    module = spec.part.__module__
    is_ours = module.split(".")[0] == "ssl_scale"
    found: dict[str, Any] = {
        "type": spec.part.__name__ if is_ours else f"{module}:{spec.part.__name__}"
    }
    for name, parameter in inspect.signature(spec.part).parameters.items():
        value = spec.arguments.get(name, parameter.default)
        if not is_given(hints.get(name)) and value is not inspect.Parameter.empty:
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return describe(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _check_free(folder: Path, force: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    is_export = (folder / CONFIG_NAME).is_file() and FORMAT in (folder / CONFIG_NAME).read_text(
        errors="replace"
    )
    if not is_export:
        raise SslScaleError(
            f"{folder} must be a new folder, but holds something that is no export; name another"
        )
    if not force:
        raise SslScaleError(
            f"{folder} must be a new folder, but holds an export; name another, or pass --force to "
            "replace it"
        )


def _put(draft: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
