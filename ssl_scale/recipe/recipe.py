"""A whole run as data: specs and sections, checked, nothing built.

The dataclasses are the schema: the reader checks a recipe's YAML against their annotations, and
there is no second description of what a recipe may hold.
"""

import dataclasses
import hashlib
import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen

from ssl_scale.data.views.view import ViewMaker
from ssl_scale.encoders.encoder import Encoder
from ssl_scale.heads.head import Head
from ssl_scale.masking.sampler import MaskSampler
from ssl_scale.objectives.objective import Objective
from ssl_scale.optim.optimizer import Optimizer
from ssl_scale.optim.schedule import Constant, Schedule
from ssl_scale.part import (
    EncoderName,
    Given,
    Key,
    Part,
    Probability,
    Spec,
    ViewName,
    annotations_of,
    is_given,
)
from ssl_scale.probes.probe import Probe
from ssl_scale.recipe.annotations import sections_named
from ssl_scale.recipe.data_plan import DataPlan
from ssl_scale.recipe.evaluation_plan import EvaluationPlan
from ssl_scale.recipe.init_from import InitFrom
from ssl_scale.recipe.loading import dump
from ssl_scale.recipe.provenance import Provenance
from ssl_scale.recipe.rooms import Room
from ssl_scale.recipe.train_plan import TrainPlan
from ssl_scale.recipe.warm_start import WarmStart
from ssl_scale.teachers.teacher import Teacher


@dataclass(frozen=True)
class MaskSpec:
    """A named mask: drawn once a step, shared by all objectives that name it.

    Args:
        spec: the sampler.
        view: what it covers.
        encoder: whose tokens it hides; named like the view unless told.
    """

    spec: Spec[MaskSampler]
    view: ViewName
    encoder: EncoderName = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoder", self.encoder or self.view)


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder, and what it starts from.

    Args:
        spec: the encoder.
        init_from: released weights or an export that it starts from; fresh ones unless told.
    """

    spec: Spec[Encoder]
    init_from: InitFrom | None = None


@dataclass(frozen=True)
class HeadSpec:
    """A head that several objectives share.

    Args:
        spec: the head.
        encoder: whose features it is given; their width is its own.
    """

    spec: Spec[Head]
    encoder: EncoderName


@dataclass(frozen=True)
class ObjectiveSpec:
    """A loss and its place in the sum.

    Args:
        spec: the objective.
        weight: factor of its loss, a number or a schedule.
        start: fraction of training from which it is active; recipes call it ``from``.
        until: fraction of training until which it is active.
        absent: what happens, in steps without it, to parameters that only it trains: ``zero``
            gives them a zero gradient (momentum and weight decay still act), ``skip`` leaves them
            and their moments untouched.
    """

    spec: Spec[Objective]
    weight: Spec[Schedule] = field(default_factory=lambda: Spec(Constant, {"value": 1.0}))
    start: Annotated[Probability, Key("from")] = 0.0
    until: Probability = 1.0
    absent: Literal["zero", "skip"] = "zero"

    def __post_init__(self) -> None:
        if self.start >= self.until:
            raise ValueError(
                f"`from` must be below `until`, but is {self.start}, and until is {self.until}"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run that can be built.

    Args:
        name: what the run is called unless told: the shipped recipe's or the file's name.
        system: the published system that it implements.
        paths: data roles and the paths that they are bound to.
        data: what is read.
        views: name -> how fields become what an encoder is given.
        encoders: name -> encoder.
        init_from: parts that start from what other runs have learned.
        heads: name -> head that several objectives share.
        masks: name -> which tokens of a view are hidden.
        teachers: name -> where targets come from.
        objectives: name -> loss.
        optim: the optimizer with its schedules.
        train: how the run trains.
        probes: name -> measurement of frozen features.
        evaluation: what trained encoders are measured on.
        callbacks: name -> what else happens while training.
        path: the file that was read.
        resolved: the merged recipe as plain data: what `read_recipe` needs to read it again.
    """

    name: str = ""
    system: Provenance | None = None
    paths: Mapping[str, Any] = field(default_factory=dict)
    data: DataPlan
    views: Mapping[str, Spec[ViewMaker]] = field(default_factory=dict)
    encoders: Annotated[Mapping[str, EncoderSpec], MinLen(1)]
    init_from: tuple[WarmStart, ...] = ()
    heads: Mapping[str, HeadSpec] = field(default_factory=dict)
    masks: Mapping[str, MaskSpec] = field(default_factory=dict)
    teachers: Mapping[str, Spec[Teacher]] = field(default_factory=dict)
    objectives: Annotated[Mapping[str, ObjectiveSpec], MinLen(1)]
    optim: Spec[Optimizer]
    train: TrainPlan
    probes: Mapping[str, Spec[Probe]] = field(default_factory=dict)
    evaluation: EvaluationPlan | None = None
    callbacks: Mapping[str, Annotated[Spec[Part], Room("ssl_scale.train.callbacks")]] = field(
        default_factory=dict
    )
    path: Given[Path] = Path()
    resolved: Given[Mapping[str, Any]] = field(default_factory=dict)

    def to_yaml(self) -> str:
        """The merged recipe, as `read_recipe` reads it back: no ``extends``, data bound."""
        return dump(self.resolved)

    def num_steps(self, num_samples: Mapping[str, int]) -> int:
        """Optimizer steps of the whole run.

        Args:
            num_samples: of every training source; not looked at where the recipe counts in steps.
        """
        if self.train.steps is not None:
            return self.train.steps
        assert self.train.epochs is not None, "the reader lets through steps or epochs only"
        wanted = self.train.epochs * sum(num_samples[name] for name in self.data.sources)
        return math.ceil(wanted / self.data.global_batch)

    def fingerprint(self) -> str:
        """Tells recipes that train different things apart.

        Fields, feeds, encoders, heads, teachers and objectives count; a default that is spelled
        out does not. Lengths, paths, batch sizes, first weights, the optimizer and logging do not
        count: a run may be continued with others.
        """
        sources = {name: sorted(source.feeds) for name, source in self.data.sources.items()}
        return self._hash_trained([sources])

    def fingerprint_without_sources(self) -> str:
        """Tells recipes that train different things apart, whatever feeds them."""
        return self._hash_trained([])

    def _hash_trained(self, sources: list[dict[str, list[str]]]) -> str:
        trained = [
            self.data.fields,
            *sources,
            {name: entry.spec for name, entry in self.encoders.items()},
            self.heads,
            self.teachers,
            self.objectives,
        ]
        text = json.dumps(_canonical(trained), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(value: Any) -> Any:
    """Plain data that is equal for equal meanings."""
    if isinstance(value, Spec):
        return {"type": value.part.__name__, **_arguments(value)}
    if isinstance(value, Part):  # a default; modules are never defaults
        return {"type": type(value).__name__, **_canonical(vars(value))}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            item.name: _canonical(getattr(value, item.name)) for item in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(name): _canonical(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if value is None or isinstance(value, str | int | float) else type(value).__name__


def _arguments(spec: Spec[Any]) -> dict[str, Any]:
    """A spec's arguments with defaults filled in; without paths and what is given at run time."""
    hints = annotations_of(spec.part)
    found = {}
    for name, parameter in inspect.signature(spec.part).parameters.items():
        if is_given(hints.get(name)) or "paths" in sections_named(hints.get(name)):
            continue
        value = spec.arguments.get(name, parameter.default)
        if value is not inspect.Parameter.empty:
            found[name] = _canonical(value)
    return found
