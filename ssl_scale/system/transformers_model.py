"""An encoder of a checkpoint as a model of `transformers`: its configuration and its tensors.

Nothing is built but shapes, and no tensor is read before its file is written.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from ssl_scale.checkpoint.model_files import Pending
from ssl_scale.checkpoint.weights import Weights
from ssl_scale.encoders.encoder import Encoder
from ssl_scale.encoders.equivalent import Equivalent, NoEquivalentError, equivalent_of
from ssl_scale.encoders.hf import HFEncoder, read_config
from ssl_scale.part import Spec


@dataclass(frozen=True)
class TransformersModel:
    """What `AutoModel.from_pretrained` needs.

    Args:
        settings: the configuration.
        tensors: by name.
        note: what who reads the model's outputs must know.
    """

    settings: PretrainedConfig
    tensors: Mapping[str, Pending]
    note: str = ""

    def write_config(self, folder: Path) -> None:
        """Write ``config.json``."""
        self.settings.save_pretrained(folder)


def as_transformers_model(
    spec: Spec[Encoder], part: str, weights: Weights, dtype: torch.dtype
) -> TransformersModel:
    """Describe an encoder as a model of `transformers`.

    Args:
        spec: the encoder, as its run's recipe has it.
        part: its name in the system, such as ``encoders.image``.
        weights: of the checkpoint.
        dtype: of the numbers that are written.

    Raises:
        NoEquivalentError: there is no such model, or the weights are not those of the encoder.
    """
    if issubclass(spec.part, HFEncoder):
        return _own_kind(spec, part, weights, dtype)
    encoder = _shapes_only(spec, part, weights)
    _refuse_other_shapes(dict(encoder.named_parameters()), part, weights)
    equivalent = equivalent_of(encoder)
    settings = AutoConfig.for_model(**equivalent.config)
    model = _shape_of(settings)
    tensors = dict(_converted(equivalent, part, weights, dtype))
    # Names and cuts on disk are not those in memory; how many numbers there are tells them apart.
    wanted = sum(
        tensor.numel()
        for name, tensor in model.state_dict().items()
        if not name.startswith(equivalent.fresh)
    )
    found = sum(torch.Size(tensor.shape).numel() for tensor in tensors.values())
    if wanted != found:
        raise NoEquivalentError(f"{type(model).__name__} has {wanted} numbers, and this {found}")
    _tell(settings, model, dtype)
    return TransformersModel(settings, tensors, equivalent.note)


def _own_kind(
    spec: Spec[Encoder], part: str, weights: Weights, dtype: torch.dtype
) -> TransformersModel:
    """A model of `transformers` as it is; low-rank updates are added to what they update."""
    try:
        settings = read_config(spec.arguments.get("folder"), spec.arguments.get("config"))
    except (ValueError, OSError) as error:
        raise NoEquivalentError(f"its configuration is not here: {error}") from error
    adapters = spec.arguments.get("adapters")
    scale = 0.0
    if adapters is not None:
        built = adapters.build()
        scale = built.alpha / built.rank
    model = _shape_of(settings)
    used: set[str] = set()
    tensors = {}
    for name, tensor in model.state_dict().items():
        place = _Place(model, f"{part}.model", name, weights)
        sources = place.sources()
        if weights.shape(sources[0]) != tuple(tensor.shape):
            raise NoEquivalentError(
                f"{name} must be {list(tensor.shape)}, as in its configuration, but is "
                f"{list(weights.shape(sources[0]))}"
            )
        used.update(sources)
        kept = weights.dtype(sources[0])
        tensors[name] = Pending(
            tuple(tensor.shape),
            dtype if kept.is_floating_point else kept,
            partial(_merged, weights, sources, scale),
        )
    left = [
        name for name in weights.below(part) if name not in used and not weights.is_buffer(name)
    ]
    if left:
        raise NoEquivalentError(f"{left[0]} has no place in {type(model).__name__}")
    _tell(settings, model, dtype)
    return TransformersModel(settings, tensors)


@dataclass(frozen=True)
class _Place:
    """Where one tensor of a model is in a checkpoint."""

    model: PreTrainedModel
    prefix: str
    name: str
    weights: Weights

    def sources(self) -> tuple[str, ...]:
        """The tensor, or what was frozen and the two factors (A, B) of its update."""
        plain = f"{self.prefix}.{self.name}"
        if plain in self.weights:
            return (plain,)
        module, _, kind = self.name.rpartition(".")
        base = f"{self.prefix}.{module}.base_layer.{kind}"
        if base not in self.weights:
            raise NoEquivalentError(f"the checkpoint lacks {plain}")
        if kind != "weight":
            return (base,)
        factors = [f"{self.prefix}.{module}.lora_{side}.default.weight" for side in "AB"]
        layer = self.model.get_submodule(module)
        if type(layer) is not nn.Linear or not all(name in self.weights for name in factors):
            raise NoEquivalentError(
                f"adapters of {module} ({type(layer).__name__}) cannot be merged; only those of "
                "linear layers can"
            )
        return (base, *factors)


def _merged(weights: Weights, sources: tuple[str, ...], scale: float) -> Tensor:
    """LoRA, equation 3: ``W + alpha / r * B A``."""
    whole = weights.read(sources[0])
    if len(sources) == 1:
        return whole
    down, up = (weights.read(name).float() for name in sources[1:])
    return whole.float() + scale * (up @ down)


def _shapes_only(spec: Spec[Encoder], part: str, weights: Weights) -> Encoder:
    given: dict[str, Any] = {}
    words = f"{part}.embedding.weight"
    if words in weights:  # so no tokenizer is needed
        given = {"vocab_size": weights.shape(words)[0], "mask_token": None}
    try:
        with torch.device("meta"):
            return spec.build(**given)
    except (TypeError, ValueError) as error:
        raise NoEquivalentError(f"it cannot be built here: {error}") from error


def _refuse_other_shapes(
    parameters: Mapping[str, nn.Parameter], part: str, weights: Weights
) -> None:
    for name, parameter in parameters.items():
        full = f"{part}.{name}"
        if full not in weights or weights.shape(full) != tuple(parameter.shape):
            raise NoEquivalentError(f"{full} is not of the recipe's encoder")


def _converted(
    equivalent: Equivalent, part: str, weights: Weights, dtype: torch.dtype
) -> Iterator[tuple[str, Pending]]:
    for theirs, origin in equivalent.origins.items():
        names = [f"{part}.{name}" for name in origin.names]
        with torch.device("meta"):
            shape = origin.make(*(torch.empty(weights.shape(name)) for name in names)).shape
        yield theirs, Pending(tuple(shape), dtype, partial(_made, weights, origin.make, names))


def _made(weights: Weights, make: Any, names: list[str]) -> Tensor:
    made: Tensor = make(*(weights.read(name).float() for name in names))
    return made


def _shape_of(settings: PretrainedConfig) -> PreTrainedModel:
    make: Any = AutoModel.from_config
    with torch.device("meta"):
        model: PreTrainedModel = make(settings, trust_remote_code=False, dtype=torch.float32)
    return model


def _tell(settings: PretrainedConfig, model: PreTrainedModel, dtype: torch.dtype) -> None:
    settings.architectures = [type(model).__name__]
    settings.dtype = dtype
