"""What a recipe's callbacks are: onlookers that read the answers of steps.

Kept free of Lightning, so that checking a recipe does not import it; `observing` connects them.
"""

from collections.abc import Mapping

from torch import Tensor

from ssl_scale.part import Part
from ssl_scale.system.step import Answers


class Observer(Part):
    """Watches training or validation and has figures to tell.

    What an objective asked of the step before costs nothing to ask again: with ``grad=False``,
    and by the same names. All ranks see the same kinds of batches in the same order, so an
    observer may use collectives.
    """

    def see_step(self, answers: Answers) -> None:
        """A batch that was just trained on."""

    def see_validation(self, source: str, answers: Answers) -> None:
        """A held-out batch, in evaluation mode."""

    def read_steps(self) -> dict[str, float]:
        """Figures on the steps seen since the last reading, of all ranks; may be a collective."""
        return {}

    def read_validation(self) -> dict[str, float]:
        """Figures on the validation pass that just ended, of all ranks; may be a collective."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs; equal on all ranks."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved state; an empty one is that of a run without this observer."""


def shows(answers: Answers, view: str, *fields: str) -> bool:
    """Whether a batch has the field that a view shows, and further fields."""
    held = answers.batch.fields
    return all(name in held for name in (answers.system.views[view].field, *fields))
