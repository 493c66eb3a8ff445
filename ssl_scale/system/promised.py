"""Whether parts will be able to start from runs that have not begun: names and shapes alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from ssl_scale.checkpoint.weights import Shapes
from ssl_scale.errors import SslScaleError
from ssl_scale.recipe.warm_start import WarmStart
from ssl_scale.system.warm_start import compare, module_at


class Promised(Shapes):
    """What the checkpoints of a run will hold.

    Args:
        system: the run's, built without values.
        teacher: a teacher whose copies stand in the student's place, under the student's names.
        recipe: what the run will be made by, for messages.
    """

    def __init__(self, system: nn.Module, teacher: str | None, recipe: Path) -> None:
        tensors = {**dict(system.named_parameters()), **dict(system.named_buffers())}
        self._shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        super().__init__({name: name for name in tensors}, teacher, recipe)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self._shapes[self._keys[name]]


def check_promised(
    system: nn.Module,
    starts: Sequence[WarmStart],
    promised: Mapping[str, tuple[nn.Module, Path]],
) -> None:
    """See whether parts will be able to start from runs that are still to come.

    Args:
        system: built without values.
        starts: what starts from where; entries about other runs are passed over.
        promised: path of a run -> its system, built without values, and its recipe's file.

    Raises:
        SslScaleError: a part will not be there, or not fit.
    """
    for number, plan in enumerate(starts):
        if plan.run not in promised:
            continue
        try:
            theirs, recipe = promised[plan.run]
            shapes = Promised(theirs, plan.teacher, recipe)
            for part in plan.parts:
                compare(module_at(system, part), part, plan, shapes)
        except SslScaleError as error:
            raise SslScaleError(f"init_from[{number}]: {error}") from error
