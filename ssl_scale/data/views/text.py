"""Text as a view: token ids, one crop a sample."""

import torch

from ssl_scale.data.views.view import ViewMaker, ragged_field
from ssl_scale.part import FieldName
from ssl_scale.rng import Draw
from ssl_scale.types import Batch, Packed, View


class TextView(ViewMaker):
    """The tokens of a text field as they are.

    Args:
        field: a field of token ids.
    """

    def __init__(self, field: FieldName) -> None:
        self.field = field

    def __call__(self, batch: Batch, draw: Draw) -> View:
        """Values ``[batch, 1, tokens]``; a sample without text is nowhere valid.

        Texts that the loader packed stay packed: ``[1, 1, places]``.
        """
        packed = batch.fields.get(self.field)
        if isinstance(packed, Packed):
            places = torch.arange(len(packed.values), device=packed.values.device)
            valid = (places < packed.lengths.sum())[None, None]
            values = packed.values[None, None]
            return View(values, valid, batch.seeds, lengths=packed.lengths)
        tokens = ragged_field(batch, self.field)
        return View(tokens.values[:, None], tokens.valid[:, None], batch.seeds)
