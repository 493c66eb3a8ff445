"""Encoders for use without their run: what ``ssl_scale.load`` makes of an exported folder.

The folder may come from anywhere, so it is data: its types must be parts of ours, its files have
fixed names, and nothing in it is run.
"""

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from ssl_scale.data.collate import collate
from ssl_scale.data.decoding import FieldDecoder
from ssl_scale.data.text_field import TextField
from ssl_scale.data.views.view import ViewMaker
from ssl_scale.encoders.encoder import Encoder
from ssl_scale.errors import SslScaleError
from ssl_scale.heads.projector import Projector
from ssl_scale.recipe.entry import Entry, plain
from ssl_scale.recipe.loading import load as load_yaml
from ssl_scale.recipe.read_part import read_part
from ssl_scale.rng import Draw
from ssl_scale.system.pretrained_folder import (
    CONFIG_NAME,
    FORMAT,
    TOKENIZER_NAME,
    VERSION,
    encoder_file,
    projector_file,
)
from ssl_scale.types import Batch, Features, View

Sample: TypeAlias = str | bytes | Path | Image.Image
Samples: TypeAlias = Sequence[Sample] | np.ndarray | Tensor


class Pretrained(nn.Module):
    """Encoders with what turns pictures and texts into their input, in evaluation mode.

    For fine-tuning use the modules: ``model.encoders["image"](model.view(samples))``.

    Args:
        encoders: name -> encoder.
        fields: encoder -> how a sample's bytes become values.
        views: encoder -> how values become its input.
        projectors: objective -> encoder -> head into the space that encoders share.
        source: where the weights come from, for people.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        fields: Mapping[str, FieldDecoder],
        views: Mapping[str, ViewMaker],
        projectors: Mapping[str, Mapping[str, Projector]] | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.projectors = nn.ModuleDict(
            {name: nn.ModuleDict(heads) for name, heads in (projectors or {}).items()}
        )
        self._spaces = {name: tuple(heads) for name, heads in (projectors or {}).items()}
        self.fields, self.views, self.source = dict(fields), dict(views), dict(source or {})
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @torch.no_grad()
    def encode(
        self, samples: Samples, encoder: str | None = None, batch_size: int = 256
    ) -> Float[Tensor, "samples width"]:
        """One vector for each sample.

        Args:
            samples: pictures (paths, bytes of a file, PIL images, or uint8 ``[n, channels, size,
                size]`` as the encoder's field makes them) or texts.
            encoder: which; may be left out where there is one for pictures and one for texts.
            batch_size: samples at once.
        """
        name = self._choose(samples, encoder)
        return torch.cat([part.pooled[:, 0] for part in self._run(samples, name, batch_size)])

    @torch.no_grad()
    def tokens(
        self, samples: Samples, encoder: str | None = None, batch_size: int = 256
    ) -> tuple[Float[Tensor, "samples tokens width"], Bool[Tensor, "samples tokens"]]:
        """A vector for each patch or word, padded, and which of them are no padding."""
        name = self._choose(samples, encoder)
        parts = list(self._run(samples, name, batch_size))
        longest = max(part.tokens.shape[2] for part in parts)
        return (
            torch.cat([_lengthen(part.tokens[:, 0], longest) for part in parts]),
            torch.cat([_lengthen(part.valid[:, 0, :, None], longest)[..., 0] for part in parts]),
        )

    @torch.no_grad()
    def project(
        self,
        samples: Samples,
        encoder: str | None = None,
        objective: str | None = None,
        batch_size: int = 256,
    ) -> Float[Tensor, "samples width"]:
        """Vectors of length 1 in the space that encoders share: their products are similarities.

        Args:
            samples: see `encode`.
            encoder: see `encode`.
            objective: whose space; may be left out where there is one.
            batch_size: samples at once.
        """
        name = self._choose(samples, encoder)
        spaces = [key for key, names in self._spaces.items() if name in names]
        if objective is None and len(spaces) == 1:
            objective = spaces[0]
        if objective not in spaces:
            raise ValueError(f"objective must be one of {spaces}, but is {objective!r}")
        head = self.projectors[objective][name]  # type: ignore[index]
        return F.normalize(head(self.encode(samples, name, batch_size)), dim=-1)

    def view(self, samples: Samples, encoder: str | None = None) -> View:
        """The encoder's input, on the weights' device."""
        name = self._choose(samples, encoder)
        batch = self._batch(samples, name).to(self.device)
        return self.views[name](batch, Draw(batch.seeds))

    def _run(self, samples: Samples, name: str, batch_size: int) -> Iterator[Features]:
        if not len(samples):
            raise ValueError("samples must hold at least one, but are empty")
        for start in range(0, len(samples), batch_size):
            yield self.encoders[name](self.view(samples[start : start + batch_size], name))

    def _choose(self, samples: Samples, encoder: str | None) -> str:
        if encoder is None:
            is_text = isinstance(samples, Sequence) and len(samples) and isinstance(samples[0], str)
            fitting = [
                name
                for name, field in self.fields.items()
                if isinstance(field, TextField) == is_text or len(self.fields) == 1
            ]
            encoder = fitting[0] if len(fitting) == 1 else None
        if encoder is None or encoder not in self.fields:
            raise ValueError(f"encoder must be one of {list(self.fields)}, but is {encoder!r}")
        return encoder

    def _batch(self, samples: Samples, name: str) -> Batch:
        field, member = self.fields[name], self.views[name].field
        seeds = np.zeros(len(samples), np.int64)
        if isinstance(samples, np.ndarray | Tensor):
            values = torch.as_tensor(samples)
            expected = field.collate([field.missing()])
            if not isinstance(expected, Tensor):
                raise ValueError(f"samples must be a list of texts, but are {type(samples)}")
            if values.dtype != expected.dtype or values.shape[1:] != expected.shape[1:]:
                raise ValueError(
                    f"samples must be {expected.dtype} {['n', *expected.shape[1:]]}, but are "
                    f"{values.dtype} {list(values.shape)}; other pictures go in as a list of PIL "
                    "images"
                )
            keys = tuple(map(str, range(len(values))))
            return Batch(name, {member: values}, torch.from_numpy(seeds), keys)
        read = [
            {"__key__": str(place), member: field.decode(*_bytes_of(sample, field))}
            for place, sample in enumerate(samples)
        ]
        return collate(name, {member: field}, read, seeds)


def encoder_builders(
    folder: Path, allow_modules: Sequence[str] = ()
) -> dict[str, Callable[[], Encoder]]:
    """How to build each encoder of an exported folder; they have no weights yet.

    Args:
        folder: what ``ssl-scale export`` wrote.
        allow_modules: see `load`.

    Raises:
        SslScaleError: the folder is no export.
    """
    config = _read_config(folder)
    _refuse_foreign_types(config, ("ssl_scale", *allow_modules))
    return {
        name: partial(_build, Encoder, entry, "encoder", f"encoders.{name}")
        for name, entry in _items(config, "encoders")
    }


def load(
    folder: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    allow_modules: Sequence[str] = (),
) -> Pretrained:
    """Read an exported folder.

    Args:
        folder: what ``ssl-scale export`` wrote.
        device: where the weights go.
        allow_modules: packages besides ours whose classes the folder may name; naming one runs it.

    Raises:
        SslScaleError: the folder is no export, is damaged, or is of another version.
    """
    folder = Path(folder)
    config = _read_config(folder)
    _refuse_foreign_types(config, ("ssl_scale", *allow_modules))
    encoders, fields, views = {}, {}, {}
    for name, entry in _items(config, "encoders"):
        where = f"encoders.{name}"
        encoders[name] = _build(Encoder, entry, "encoder", where)
        fields[name] = _read_field(entry, folder, where)
        views[name] = _build(ViewMaker, entry, "view", where)
        _fill(encoders[name], folder / encoder_file(name))
    projectors = {}
    for name, entry in _items(config, "projectors"):
        heads = {
            encoder: _build(Projector, inner, "head", f"projectors.{name}.{encoder}")
            for encoder, inner in entry.items.items()
        }
        _fill(nn.ModuleDict(heads), folder / projector_file(name))
        projectors[name] = heads
    source = config.at("source")
    model = Pretrained(encoders, fields, views, projectors, plain(source) if source else None)
    return model.to(device).requires_grad_(False)


def _lengthen(values: Shaped[Tensor, "n short width"], length: int) -> Shaped[Tensor, "n l width"]:
    return F.pad(values, (0, 0, 0, length - values.shape[1]))


def _bytes_of(sample: Sample, field: FieldDecoder) -> tuple[bytes, str]:
    extension = field.extensions[0]
    if isinstance(sample, bytes):
        return sample, extension
    if isinstance(sample, Image.Image):
        buffer = io.BytesIO()
        sample.save(buffer, format="PNG")
        return buffer.getvalue(), "png"
    if isinstance(sample, str) and isinstance(field, TextField):
        return sample.encode(), "txt"  # also where the shards keep it inside JSON
    return Path(sample).read_bytes(), Path(sample).suffix.lstrip(".") or extension


def _read_config(folder: Path) -> Entry:
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise SslScaleError(
            f"{folder} must be a folder that ssl-scale export wrote, but has no {CONFIG_NAME}"
        )
    config = load_yaml(path.read_bytes(), str(path))
    found = (config.at("format"), config.at("version"))
    values = tuple(entry.value if entry else None for entry in found)
    if values != (FORMAT, VERSION):
        raise SslScaleError(
            f"{path} must say format {FORMAT!r}, version {VERSION}, but says {values[0]!r}, "
            f"version {values[1]!r}; export again with this version of ssl-scale"
        )
    return config


def _items(config: Entry, section: str) -> Iterator[tuple[str, Entry]]:
    entry = config.at(section)
    for name, inner in (entry.items if entry else {}).items():
        if not name.replace("_", "").replace("-", "").isalnum():
            raise SslScaleError(
                f"{inner.place}: {section} must have names of letters, digits, - and _, "
                f"but one is {name!r}"
            )
        yield name, inner


def _refuse_foreign_types(entry: Entry, allowed: Sequence[str]) -> None:
    for name, inner in entry.items.items():
        if name == "type" and isinstance(inner.value, str) and ":" in inner.value:
            module = inner.value.partition(":")[0]
            if not any(module == one or module.startswith(f"{one}.") for one in allowed):
                raise SslScaleError(
                    f"{inner.place}: type must be a part of ssl_scale, but is {inner.value!r}, "
                    "which would run code of another package; if you trust it, pass "
                    f"allow_modules=[{module.split('.')[0]!r}]"
                )
        _refuse_foreign_types(inner, allowed)
    if isinstance(entry.value, list):
        for inner in entry.value:
            _refuse_foreign_types(inner, allowed)


def _build(base: type[Any], entry: Entry, key: str, where: str) -> Any:
    given = entry.at("given")
    values = plain(given) if given and given.is_mapping else {}
    return read_part(base, _must_have(entry, key, where), f"{where}.{key}").build(**values)


def _read_field(entry: Entry, folder: Path, where: str) -> FieldDecoder:
    found = _must_have(entry, "field", where)
    if found.at("tokenizer") is not None:
        # Whatever path stands there: the tokenizer is the one in the folder.
        own = Entry(str((folder / TOKENIZER_NAME).absolute()), found.place)
        found = Entry(found.items | {"tokenizer": own}, found.place)
    spec = read_part(FieldDecoder, found, f"{where}.field")  # type: ignore[type-abstract]
    return spec.build()


def _must_have(entry: Entry, key: str, where: str) -> Entry:
    found = entry.at(key)
    if found is None:
        raise SslScaleError(f"{entry.place}: {where} must have {key!r}, but has not")
    return found


def _fill(module: nn.Module, path: Path) -> None:
    try:
        module.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise SslScaleError(f"{path} must hold weights, but there is no such file") from error
    except Exception as error:  # safetensors and torch raise each their own
        raise SslScaleError(
            f"{path} must hold the weights that {CONFIG_NAME} describes, but does not: {error}"
        ) from error
