"""Reading held-out samples and looking at them through a system's encoders, batch by batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_scale.data.collate import collate
from ssl_scale.data.decoding import FieldDecoder, UndecodableError
from ssl_scale.data.source import Source
from ssl_scale.errors import DataError, UnboundDataError
from ssl_scale.objectives.infonce import InfoNCE
from ssl_scale.objectives.sigmoid_contrast import SigmoidContrast
from ssl_scale.recipe.evaluation_plan import EvaluationData
from ssl_scale.system.system import System
from ssl_scale.types import Batch, Step

Look = Callable[[Step], Mapping[str, Tensor]]
# What brings two encoders' features into one space.
Aligning: TypeAlias = InfoNCE | SigmoidContrast


def open_held_out(data: EvaluationData, fields: Mapping[str, FieldDecoder], seed: int) -> Source:
    """A data set, in the order in which it is stored.

    Raises:
        UnboundDataError: the role has no path.
    """
    if data.path is None:
        raise UnboundDataError(
            f"role {data.role!r} of the evaluation has no path; bind it with --data "
            f"{data.role}=PATH"
        )
    return Source("evaluation", data.path, fields, seed, shuffle=False)


def read_batches(
    source: Source, batch_size: int = 256, places: Int[np.ndarray, " n"] | None = None
) -> Iterator[Batch]:
    """The samples at some places, or all of them, once.

    Raises:
        DataError: a sample does not decode.
    """
    if places is None:
        places = np.arange(len(source))
    for start in range(0, len(places), batch_size):
        refs = source.locate_all(places[start : start + batch_size])
        try:
            samples = [source.read(ref) for ref in refs]
        except UndecodableError as error:
            raise DataError(f"{error}; mend or remove the sample") from error
        seeds = source.seeds([0] * len(refs), [str(sample["__key__"]) for sample in samples])
        yield collate(source.name, source.fields, samples, seeds)


@torch.no_grad()
def look_at(
    system: System, batches: Iterator[Batch], look: Look, scope: str = "evaluation"
) -> dict[str, np.ndarray]:
    """What `look` sees in every batch, joined; the system must be in evaluation mode.

    Args:
        system: is looked through.
        batches: what is looked at.
        look: a step -> arrays by name.
        scope: as whom the step is asked; an objective is asked as itself.
    """
    device = next(system.parameters()).device
    seen: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        step = system.answers(batch.to(device), progress=1.0).named(scope)
        for name, values in look(step).items():
            host = values.float() if values.is_floating_point() else values
            seen.setdefault(name, []).append(host.cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in seen.items()}


def pooled(step: Step, encoder: str, view: str) -> Float[Tensor, "batch width"]:
    """The encoder's vector of each sample's first crop."""
    return step.student(encoder, view, grad=False).pooled[:, 0]


def projected(
    step: Step, objective: Aligning, encoder: str, view: str | None = None
) -> Float[Tensor, "batch width"]:
    """A sample's place in the space that a contrastive objective's encoders share."""
    view = view or objective.views[objective.between.index(encoder)]
    present = step.view(view).present[:, 0]
    place: Tensor = objective.projectors[encoder](pooled(step, encoder, view), present)
    return place


def text_batch(texts: Sequence[str], name: str, field: FieldDecoder) -> Batch:
    """Texts that are no data set, as a batch."""
    samples = [{"__key__": text, name: field.decode(text.encode(), "txt")} for text in texts]
    return collate("texts", {name: field}, samples, np.zeros(len(texts), np.int64))
