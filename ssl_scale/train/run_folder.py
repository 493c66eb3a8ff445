"""What a start of a run finds and leaves in its folder."""

import os
from functools import partial
from pathlib import Path

from ssl_scale import dist
from ssl_scale.checkpoint import layout
from ssl_scale.checkpoint.reader import Reader
from ssl_scale.errors import SslScaleError
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.train.cluster import LaunchEnvironment
from ssl_scale.train.environment import next_attempt, record_environment, write_atomically
from ssl_scale.train.messages import say
from ssl_scale.train.records import Records, RecordView
from ssl_scale.train.wandb_view import WandbView

COMPLETED = "COMPLETED"


def begin(recipe: Recipe, run_folder: Path, source: Reader | None) -> tuple[int, Records]:
    """Write down what starts here: the recipe, the environment, where the records go on."""
    attempt = dist.from_rank_0(partial(write_down, recipe, run_folder))
    views: list[RecordView] = []
    if recipe.train.wandb:
        make_view = partial(WandbView, run_folder, run_folder.name, recipe.resolved)
        dist.from_rank_0(lambda: views.append(make_view()))
    records = Records(run_folder, attempt, views)
    if attempt > 1:
        records.resume(source.state["done"] if source else -1)
    if source:
        say(f"continuing {run_folder} after step {source.state['done']} (attempt {attempt})")
    return attempt, records


def write_down(recipe: Recipe, run_folder: Path) -> int:
    """Write recipe and environment of the attempt that starts; returns its number. Rank 0 only."""
    attempt = next_attempt(run_folder)
    try:
        (run_folder / COMPLETED).unlink(missing_ok=True)  # of a run that now starts over
        write_atomically(run_folder / "recipe.yaml", recipe.to_yaml())
        for reason in layout.broken(run_folder / "checkpoints"):
            say(f"passed over: {reason}")
        for draft in sorted((run_folder / "checkpoints").glob("step-*.tmp-*")):
            say(f"passed over: {draft}: a save that was cut off")
        for warning in record_environment(run_folder, attempt):
            say(f"warning: {warning}")
    except OSError as error:
        raise _unwritable(run_folder, str(error)) from error
    return attempt


def make_writable(run_folder: Path) -> None:
    """Make the run folder; found here, a bad one costs no time.

    Raises:
        SslScaleError: it cannot be made, or nothing can be written in it.
    """
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(run_folder, str(error)) from error
    if not os.access(run_folder, os.W_OK | os.X_OK):
        raise _unwritable(run_folder, "no permission")


def _unwritable(run_folder: Path, reason: str) -> SslScaleError:
    return SslScaleError(
        f"{run_folder}: the run's folder must be one that can be written, but is not ({reason}); "
        "mend it, or choose another with --run-folder"
    )


def set_aside(checkpoints: Path) -> None:
    """Make room for a run that starts over; nothing is deleted."""
    if dist.rank() == 0 and checkpoints.exists():
        number = 1 + len(list(checkpoints.parent.glob("checkpoints.before-*")))
        checkpoints.rename(checkpoints.parent / f"checkpoints.before-{number}")
    dist.barrier()


def mark_completed(run_folder: Path, done: int, total: int) -> None:
    """Tell other programs if a run has come to its end."""
    if done >= total and LaunchEnvironment().global_rank() == 0:
        write_atomically(run_folder / COMPLETED, f"{done}\n")
