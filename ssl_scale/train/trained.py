"""What a run has learned so far: its recipe and its system with a checkpoint's weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ssl_scale.checkpoint import layout
from ssl_scale.checkpoint.finding import find_checkpoint
from ssl_scale.checkpoint.reader import read_weights
from ssl_scale.errors import CheckpointError
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.system.build import build_system
from ssl_scale.system.system import System


@dataclass(frozen=True, eq=False)
class Trained:
    """A run's recipe, its system in evaluation mode, and the step that it is of."""

    recipe: Recipe
    system: System
    step: int


def read_trained(
    run_folder: Path,
    step: int | None = None,
    teacher: str | None = None,
    overrides: Sequence[str] = (),
    bindings: Mapping[str, str] | None = None,
) -> Trained:
    """Build a run's system and fill in a checkpoint's weights, on the CPU in fp32.

    Args:
        run_folder: a run's folder.
        step: of the checkpoint; the newest valid one unless told.
        teacher: a teacher whose copies of encoders and heads take the student's place.
        overrides: laid over the run's own recipe.
        bindings: data role -> path.

    Raises:
        CheckpointError: there is no such checkpoint, or it belongs to another recipe.
    """
    recipe = read_recipe(run_folder, overrides, bindings)
    folder = find_checkpoint(run_folder, step)
    system = build_untrained(recipe, initial=False)
    weights = read_weights(folder)
    if teacher is not None:
        weights = put_teacher_first(weights, teacher, recipe.teachers)
    _fill(system, weights, folder)
    found = layout.step_of(folder)
    assert found is not None, "only folders named like checkpoints are found"
    return Trained(recipe, system, found)


def build_untrained(recipe: Recipe, initial: bool = True) -> System:
    """The system as training starts from it.

    Args:
        recipe: the checked recipe.
        initial: whether encoders take the weights that the recipe lets them start from.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        return build_system(recipe, initial=initial).eval()


def put_teacher_first(
    weights: Mapping[str, Tensor], teacher: str, teachers: Mapping[str, object]
) -> dict[str, Tensor]:
    """The weights with a teacher's copies under the student's names.

    Raises:
        CheckpointError: the run has no such teacher.
    """
    prefix = f"teachers.{teacher}."
    taught = {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }
    if not taught:
        raise CheckpointError(
            f"teacher must be one of the run's, {sorted(teachers)}, but is {teacher!r}"
        )
    return {**weights, **taught}


def _fill(system: System, weights: Mapping[str, Tensor], folder: Path) -> None:
    state = system.state_dict()
    # Checkpoints hold all buffers, also those that are made anew with their module.
    unknown = sorted(weights.keys() - state.keys() - dict(system.named_buffers()).keys())
    missing = sorted(state.keys() - weights.keys())
    misshapen = sorted(
        name for name in state.keys() & weights.keys() if state[name].shape != weights[name].shape
    )
    for what, names in (("has", unknown), ("lacks", missing), ("has other shapes of", misshapen)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                f"{folder} must be a checkpoint of this recipe, but {what} "
                f"{', '.join(names[:3])}{more}; leave out overrides that change the model"
            )
    system.load_state_dict({name: weights[name] for name in state})
