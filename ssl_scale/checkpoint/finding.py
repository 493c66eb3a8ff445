"""From what people name (a run, its checkpoints, one checkpoint) to the folder that is meant."""

from pathlib import Path

from ssl_scale.checkpoint import layout
from ssl_scale.errors import CheckpointError


def checkpoints_of(path: Path) -> Path:
    """The folder that holds a run's checkpoints.

    Args:
        path: a run's folder, or that folder itself.

    Raises:
        CheckpointError: it is neither.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"{path} must be the folder of a run, but there is no such folder")
    inside = path / "checkpoints"
    if inside.is_dir():
        return inside
    if any(layout.candidates(path)) or layout.leftovers(path):
        return path
    raise CheckpointError(
        f"{path} must be the folder of a run or of checkpoints, but has neither checkpoints/ nor "
        f"{layout.folder_name(0)[:5]}*"
    )


def is_checkpoint_name(path: Path) -> bool:
    """Whether a path is named like one checkpoint."""
    return layout.step_of(Path(path).absolute()) is not None


def named_checkpoint(path: Path, step: int | None = None) -> Path:
    """The one checkpoint that is meant, whether it is whole or not.

    Args:
        path: a checkpoint, or what `checkpoints_of` takes: then its newest, or that of a step.
        step: which.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if is_checkpoint_name(path):
        if not path.is_dir():
            raise CheckpointError(f"{path} must be a checkpoint, but there is no such folder")
        if step is not None and step != layout.step_of(path.absolute()):
            raise CheckpointError(f"step must be that of {path.name}, but is {step}")
        return path
    checkpoints = checkpoints_of(path)
    found = {layout.step_of(folder): folder for folder in layout.candidates(checkpoints)}
    if not found:
        raise CheckpointError(f"{checkpoints} must hold a checkpoint, but holds none")
    if step is None:
        return next(iter(found.values()))
    if step not in found:
        raise CheckpointError(
            f"step must be that of a checkpoint in {checkpoints}, one of {sorted(map(str, found))}"
            f", but is {step}"
        )
    return found[step]


def find_checkpoint(run_folder: Path, step: int | None = None) -> Path:
    """A run's newest valid checkpoint, or that of a step.

    Args:
        run_folder: a run's folder, that of its checkpoints, or one checkpoint.
        step: which; the newest valid one unless told.

    Raises:
        CheckpointError: there is none that is whole.
    """
    run_folder = Path(run_folder)
    if is_checkpoint_name(run_folder):
        folder = named_checkpoint(run_folder, step)
        layout.read_commit(folder)
        return folder
    inside = run_folder / "checkpoints"
    checkpoints = run_folder if any(layout.candidates(run_folder)) else inside
    found = {state["step"]: folder for folder, state in layout.valid(checkpoints)}
    if not found:
        none = f"{checkpoints} has none" if run_folder.is_dir() else "there is no such folder"
        reasons = "; ".join(layout.broken(checkpoints)) or none
        raise CheckpointError(
            f"{run_folder} must have a checkpoint, but has not: {reasons}; train with `ssl-scale "
            f"fit {run_folder}`"
        )
    if step is None:
        return found[max(found)]
    if step not in found:
        raise CheckpointError(
            f"step must be that of a checkpoint in {checkpoints}, one of {sorted(found)}, "
            f"but is {step}"
        )
    return found[step]
