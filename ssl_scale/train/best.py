"""Which checkpoint is best by a held-out figure."""

import difflib
from collections.abc import Mapping
from typing import Any

from ssl_scale.errors import RecipeError


class Best:
    """Remembers the step with the best value of one figure.

    Args:
        figure: name of a validation figure, such as ``held_out/loss/clip``, lower being better;
            with a leading minus, higher is better. None looks at nothing.

    Attributes:
        step: the best one so far.
        value: the figure there, as it was measured.
    """

    def __init__(self, figure: str | None) -> None:
        self.figure = figure
        self.step: int | None = None
        self.value: float | None = None

    def consider(self, step: int, figures: Mapping[str, float]) -> bool:
        """Whether a step is the best so far.

        Raises:
            RecipeError: the figure is not among those that validation gave.
        """
        if self.figure is None:
            return False
        name = self.figure.removeprefix("-")
        if name not in figures:
            near = difflib.get_close_matches(name, figures, 3, 0.0)
            raise RecipeError(
                f"train.best must name a validation figure, but is {self.figure!r}; "
                f"there is {', '.join(near) or 'none'}"
            )
        sign = -1 if self.figure.startswith("-") else 1
        if self.value is not None and sign * figures[name] >= sign * self.value:
            return False
        self.step, self.value = step, figures[name]
        return True

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs."""
        return {"figure": self.figure, "step": self.step, "value": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; another figure starts afresh."""
        if state.get("figure") == self.figure:
            self.step, self.value = state["step"], state["value"]
