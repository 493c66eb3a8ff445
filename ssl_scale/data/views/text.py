"""Text as a view: token ids, one crop a sample."""

from ssl_scale.data.views.view import ViewMaker, ragged_field
from ssl_scale.part import FieldName
from ssl_scale.rng import Draw
from ssl_scale.types import Batch, View


class TextView(ViewMaker):
    """The tokens of a text field as they are.

    Args:
        field: a field of token ids.
    """

    def __init__(self, field: FieldName) -> None:
        self.field = field

    def __call__(self, batch: Batch, draw: Draw) -> View:
        """Values ``[batch, 1, tokens]``; a sample without text is nowhere valid."""
        tokens = ragged_field(batch, self.field)
        return View(tokens.values[:, None], tokens.valid[:, None], batch.seeds)
