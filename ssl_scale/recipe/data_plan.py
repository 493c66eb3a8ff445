"""The ``data`` section: how samples become batches, and which sources feed which objectives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import MinLen

from ssl_scale.data.decoding import FieldDecoder
from ssl_scale.optim.schedule import Constant, Schedule
from ssl_scale.part import (
    Count,
    FieldName,
    Given,
    Key,
    ObjectiveName,
    Positive,
    Probability,
    RoleName,
    Spec,
    Whole,
)
from ssl_scale.recipe.cache_plan import CachePlan
from ssl_scale.recipe.learned_plan import LearnedPlan


@dataclass(frozen=True)
class ValidationSpec:
    """A held-out source: read once a pass, in order, padded with weight zero.

    Args:
        role: the data set, by the name under which ``--data`` or ``paths`` binds it, or its path
            (anything with a slash). Recipes call it ``data``.
        fields: what is read of each sample.
        feeds: objectives whose loss is measured on it.
        split: folder below the bound path.
        num_samples: the first so many; all of them unless told.
        path: the data set's folder; None where it is not bound.
    """

    role: Annotated[RoleName, Key("data")]
    fields: Annotated[tuple[FieldName, ...], MinLen(1)]
    feeds: tuple[ObjectiveName, ...] = ()
    split: str | None = None
    num_samples: Count | None = None
    path: Given[str | None] = None


@dataclass(frozen=True)
class SourceSpec:
    """A source of training samples.

    Args:
        role: the data set, by the name under which ``--data`` or ``paths`` binds it, or its path
            (anything with a slash). Recipes call it ``data``.
        fields: what is read of each sample.
        feeds: objectives that its batches train.
        weight: share in the mixture, relative to the other sources' weights; a number, or a
            schedule over training.
        split: folder below the bound path.
        end: what comes after the last sample: ``repeat`` starts the next epoch, ``stop`` ends
            training, ``drop`` goes on with the other sources; what is too little for a batch is
            left over.
        lengths: the field whose length is a sample's number of tokens, as `ssl-data lengths` has
            counted it.
        pack: lay the texts of that field end to end in micro-batches of `max_tokens`, rather than
            pad them; attention stays inside each text.
        path: the data set's folder; None where it is not bound.
    """

    role: Annotated[RoleName, Key("data")]
    fields: Annotated[tuple[FieldName, ...], MinLen(1)]
    feeds: Annotated[tuple[ObjectiveName, ...], MinLen(1)]
    weight: Spec[Schedule] = field(default_factory=lambda: Spec(Constant, {"value": 1.0}))
    split: str | None = None
    end: Literal["repeat", "stop", "drop"] = "repeat"
    lengths: FieldName | None = None
    pack: bool = False
    path: Given[str | None] = None

    def __post_init__(self) -> None:
        if self.weight.part is Constant and not self.weight.arguments["value"] > 0:
            raise ValueError(f"weight must be above 0, but is {self.weight.arguments['value']:g}")


@dataclass(frozen=True)
class MixturePlan:
    """What the sources' weights mean.

    Args:
        unit: what they count. ``batch``: one source is drawn for each step. ``sample``: one is
            drawn for each sample of a step. ``token``: the same, with weights that count tokens of
            each source's `lengths`; exact over whole epochs.
        temperature: T, which multiplies each weight by ``n ** (1 / T)`` for a source of n samples:
            1 follows the sizes, a large T treats sources alike. None leaves sizes out.
        learned: what learns the weights from the sources' losses while training goes on. None
            keeps to the given ones.
    """

    unit: Literal["batch", "sample", "token"] = "batch"
    temperature: Positive | None = None
    learned: LearnedPlan | None = None


@dataclass(frozen=True)
class DataPlan:
    """What is read, and in which order.

    Args:
        global_batch: samples of a step, over all ranks and micro-batches.
        fields: name -> how bytes become a value.
        sources: name -> a source of training samples.
        validation: name -> a held-out source.
        per_step: ``all`` sources share every step's batch, in fixed parts by weight; with ``one``,
            `mixture` says what is drawn.
        mixture: what the sources' weights mean.
        max_tokens: tokens that a rank takes in one micro-batch of a source with `lengths`; there
            are as many micro-batches as that makes. None cuts by samples.
        window: samples of a block inside of which the order is shuffled.
        streams: contiguous streams that an epoch's order is cut into (C in design.md).
        num_workers: loader processes of each rank; 0 reads in the training process.
        bad_samples: share of unreadable samples that is tolerated; 0 stops at the first.
        cache: where each node keeps shards that it reads from an address.
        checksums: whether each member that is read is compared with what was indexed.
    """

    global_batch: Count
    fields: Mapping[str, Spec[FieldDecoder]]
    sources: Annotated[Mapping[str, SourceSpec], MinLen(1)]
    validation: Mapping[str, ValidationSpec] = field(default_factory=dict)
    per_step: Literal["one", "all"] = "one"
    mixture: MixturePlan = field(default_factory=MixturePlan)
    max_tokens: Count | None = None
    window: Count = 4096
    streams: Count = 64
    num_workers: Whole = 2
    bad_samples: Probability = 0.0
    cache: CachePlan = field(default_factory=CachePlan)
    checksums: bool = True

    @property
    def needs_lengths(self) -> bool:
        """Whether the sources' lengths are looked at."""
        return self.max_tokens is not None or self.mixture.unit == "token"
