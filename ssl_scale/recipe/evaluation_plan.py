"""The ``evaluation`` section: what ``ssl-scale evaluate`` measures features on."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from ssl_scale.part import (
    Count,
    EncoderName,
    FieldName,
    Given,
    Key,
    ObjectiveName,
    RoleName,
    ViewName,
)


@dataclass(frozen=True)
class EvaluationData:
    """A data set to evaluate on.

    Args:
        role: the data set, by the name under which ``--data`` or ``paths`` binds it, or its path
            (anything with a slash). Recipes call it ``data``.
        split: folder below the bound path.
        path: the data set's folder; None where it is not bound.
    """

    role: Annotated[RoleName, Key("data")]
    split: str | None = None
    path: Given[str | None] = None


@dataclass(frozen=True)
class TextEvaluation:
    """Masked-token loss on held-out text, against the loss of guessing by frequency.

    Args:
        train: where frequencies are counted.
        test: held-out text.
        objective: a masked-token loss; its view says which field is read.
    """

    train: EvaluationData
    test: EvaluationData
    objective: ObjectiveName


@dataclass(frozen=True)
class EvaluationPlan:
    """Measurements of a trained encoder on data that it was not trained on.

    Args:
        pool: labelled samples from which few are drawn to fit probes.
        test: held-out samples to score on.
        encoder: whose features are measured.
        view: a plain view; named like the encoder unless told.
        label: field of class numbers.
        caption: field of texts, for captions and retrieval; the field of the contrastive
            objective's text view unless told.
        contrast: objective that aligns the encoder with a text encoder; the first one that does
            unless told.
        labels_per_class: how many labels the probes see.
        classes: the classes' names, in the order of their numbers.
        prompts: captions with ``{}`` for a class's name, for zero-shot classification.
        text: measurement of a masked-token loss.
    """

    pool: EvaluationData
    test: EvaluationData
    encoder: EncoderName
    view: ViewName | None = None
    label: FieldName = "label"
    caption: FieldName | None = None
    contrast: ObjectiveName | None = None
    labels_per_class: Annotated[tuple[Count, ...], MinLen(1)] = (1, 5, 20)
    classes: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    text: TextEvaluation | None = None

    def __post_init__(self) -> None:
        if self.prompts and not self.classes:
            raise ValueError("classes must be named where there are prompts, but are empty")
        wrong = [prompt for prompt in self.prompts if prompt.count("{}") != 1]
        if wrong:
            raise ValueError(f"prompts must hold one {{}} each, but one is {wrong[0]!r}")
