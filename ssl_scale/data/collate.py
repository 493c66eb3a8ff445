"""Samples of one source as a `Batch`; rows that are only there to fill up lack every field."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_scale.data.decoding import FieldDecoder
from ssl_scale.data.seeds import Whole
from ssl_scale.types import Batch, Ragged


def collate(
    source: str,
    fields: Mapping[str, FieldDecoder],
    samples: Sequence[Mapping[str, Any] | None],
    seeds: Whole,
) -> Batch:
    """One batch.

    Args:
        source: name of the source of all samples.
        fields: field -> its decoder.
        samples: as `Source.read` gives them; None is a row of padding: its key is empty.
        seeds: one a row.

    Returns:
        The batch; a field that some row lacks has ``<field>.present`` beside it, unless lengths
        tell.
    """
    columns: dict[str, Tensor | Ragged] = {}
    for name, decoder in fields.items():
        values = [None if sample is None else sample[name] for sample in samples]
        column = decoder.collate(
            [decoder.missing() if value is None else value for value in values]
        )
        columns[name] = column
        if isinstance(column, Tensor) and any(value is None for value in values):
            columns[f"{name}.present"] = torch.tensor([value is not None for value in values])
    keys = tuple("" if sample is None else str(sample["__key__"]) for sample in samples)
    return Batch(source, columns, torch.from_numpy(np.ascontiguousarray(seeds)), keys)
