"""The ``data`` section: how samples become batches, and which sources feed which objectives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import MinLen

from ssl_scale.data.decoding import FieldDecoder
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
        weight: share in the mixture, relative to the other sources' weights.
        split: folder below the bound path.
        end: what comes after the last sample: ``repeat`` starts the next epoch, ``stop`` ends
            training.
        path: the data set's folder; None where it is not bound.
    """

    role: Annotated[RoleName, Key("data")]
    fields: Annotated[tuple[FieldName, ...], MinLen(1)]
    feeds: Annotated[tuple[ObjectiveName, ...], MinLen(1)]
    weight: Positive = 1.0
    split: str | None = None
    end: Literal["repeat", "stop"] = "repeat"
    path: Given[str | None] = None


@dataclass(frozen=True)
class DataPlan:
    """What is read, and in which order.

    Args:
        global_batch: samples of a step, over all ranks and micro-batches.
        fields: name -> how bytes become a value.
        sources: name -> a source of training samples.
        validation: name -> a held-out source.
        per_step: ``one`` source is drawn for each step, or ``all`` share its batch by weight.
        window: samples of a block inside of which the order is shuffled.
        streams: contiguous streams that an epoch's order is cut into (C in design.md).
        num_workers: loader processes of each rank; 0 reads in the training process.
        bad_samples: share of unreadable samples that is tolerated; 0 stops at the first.
    """

    global_batch: Count
    fields: Mapping[str, Spec[FieldDecoder]]
    sources: Annotated[Mapping[str, SourceSpec], MinLen(1)]
    validation: Mapping[str, ValidationSpec] = field(default_factory=dict)
    per_step: Literal["one", "all"] = "one"
    window: Count = 4096
    streams: Count = 64
    num_workers: Whole = 2
    bad_samples: Probability = 0.0
