"""Encoders in a folder of their own, as ``ssl-scale export`` writes them.

``config.json`` holds, for every encoder, its type with all arguments spelled out (so a later change
of a default changes nothing), the field that decodes its input and the plain view of it; beside it
lie the weights as safetensors and the tokenizer.
"""

import inspect
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ssl_scale.checkpoint.whole_folder import CONFIG_NAME as CONFIG_NAME
from ssl_scale.checkpoint.whole_folder import whole_folder
from ssl_scale.part import Spec, annotations_of, is_given

FORMAT = "ssl-scale-pretrained"
VERSION = 1
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
    with whole_folder(folder, FORMAT, "export", force) as draft:
        for name, tensors in weights.items():
            whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            save_file(whole, draft / name, metadata={"format": "pt"})
        if tokenizer is not None:
            shutil.copyfile(tokenizer, draft / TOKENIZER_NAME)
        about = {"format": FORMAT, "version": VERSION, **config}
        text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        (draft / CONFIG_NAME).write_text(text, encoding="utf-8")
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
