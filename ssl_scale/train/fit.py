"""``ssl-scale fit``: from a checked recipe and a run folder to a trained system."""

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import lightning.pytorch as pl
import torch

from ssl_scale import dist
from ssl_scale.checkpoint import layout
from ssl_scale.checkpoint.reader import Reader
from ssl_scale.errors import CheckpointError, SslScaleError
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.train import feed
from ssl_scale.train.best import Best
from ssl_scale.train.callbacks.checkpointing import Checkpointing, StateSource, choose
from ssl_scale.train.callbacks.guarding import Guarding
from ssl_scale.train.callbacks.observing import Observing, build_observers
from ssl_scale.train.callbacks.reporting import Reporting
from ssl_scale.train.callbacks.starting import Starting
from ssl_scale.train.callbacks.validation import Validation
from ssl_scale.train.callbacks.weight_learning import WeightLearning
from ssl_scale.train.checkpoint.writer import Writer
from ssl_scale.train.cluster import LaunchEnvironment
from ssl_scale.train.combinations import check_combinations
from ssl_scale.train.environment import next_attempt, record_environment, write_atomically
from ssl_scale.train.host_memory import keep_freed_memory
from ssl_scale.train.lease.hold import hold
from ssl_scale.train.lease.lease import Lease
from ssl_scale.train.mixing import RunMixture, may_continue
from ssl_scale.train.module import PretrainingModule
from ssl_scale.train.records import Records, RecordView
from ssl_scale.train.strategy import ZeroStrategy, zero_config
from ssl_scale.train.waiting import Waiting
from ssl_scale.train.wandb_view import WandbView

STOPPED = 75  # EX_TEMPFAIL: asked to stop, everything saved, start again to continue
REPEATS_S = 5.0


def fit(
    recipe: Recipe, run_folder: Path, max_steps: int | None = None, resume: bool = True
) -> None:
    """Train, or continue training, until the recipe's last step.

    Args:
        recipe: the checked recipe, its data bound.
        run_folder: everything the run writes goes here.
        max_steps: stop early after this many optimizer steps in all; schedules do not shrink.
        resume: continue from the newest valid checkpoint, if there is one.

    Raises:
        SslScaleError: the data, the checkpoint or the combination of settings cannot work.
    """
    _quiet_libraries()
    _show_own_messages()
    if not torch.cuda.is_available():
        keep_freed_memory()
    place = LaunchEnvironment()
    check_combinations(recipe, place.world_size(), place.local_world_size)
    opened = feed.open_sources(recipe)
    total = feed.total_steps(recipe, opened)
    last = min(total, max_steps) if max_steps else total
    strategy = ZeroStrategy(
        zero_config(
            recipe.train,
            recipe.data.global_batch // place.world_size() // recipe.train.accumulate,
            recipe.optim.build(global_batch=recipe.data.global_batch).clip,
            place.world_size(),
        )
    )
    trainer = make_trainer(strategy, place, run_folder)
    make_writable(run_folder)
    strategy.setup_environment()
    try:
        with hold(run_folder, say) as lease:
            train(recipe, opened, total, last, run_folder, resume, trainer, lease)
    finally:
        strategy.leave()


def train(
    recipe: Recipe,
    opened: feed.Opened,
    total: int,
    last: int,
    run_folder: Path,
    resume: bool,
    trainer: pl.Trainer,
    lease: Lease | None,
) -> None:
    """Train inside the process group; see `fit`."""
    checkpoints = run_folder / "checkpoints"
    if not resume:
        set_aside(checkpoints)
    newest = partial(choose, checkpoints, recipe.fingerprint(), partial(may_continue, recipe))
    source = newest()
    done, passed = (source.state["done"], source.state.get("passed", 0)) if source else (0, 0)
    mixing = RunMixture(recipe, opened.training, total, source.state if source else None)
    for line in mixing.news:
        say(line)
    end = mixing.mixture.end
    if end is not None and end - passed < total:
        end -= passed
        say(f"the data end after {end} of {total} steps (data.sources: end), and so does training")
        total, last = end, min(last, end)
    if done >= last:
        say(f"{run_folder}: {done} of {total} steps are done; nothing is left to do")
        mark_completed(run_folder, done, total)
        return
    module = PretrainingModule(recipe, total, done, passed, last)
    module.lease = lease
    attempt, records = begin(recipe, run_folder, source)
    waiting = Waiting()
    reporting = Reporting(records, recipe.train.log_every, recipe.name, waiting)
    writer = Writer(
        checkpoints,
        dist.rank(),
        dist.world_size(),
        attempt,
        recipe.train.keep_last,
        recipe.train.keep_every or 0,
        may_commit=None if lease is None else lease.check,
    )
    fixed = {
        "fingerprint": recipe.fingerprint(),
        "without_sources": recipe.fingerprint_without_sources(),
        "recipe": recipe.name,
        "zero": recipe.train.zero,
        "precision": recipe.train.precision,
        "keep_every": recipe.train.keep_every or 0,
    }
    state = StateSource(fixed, module, mixing.state)
    validators = {
        name: partial(feed.validation_stream, recipe, opened, name, run_folder)
        for name in recipe.data.validation
    }
    observers = build_observers(recipe, run_folder, attempt)
    observing = Observing(observers, recipe.train.log_every, reporting)
    validation = Validation(validators, recipe.train.validate_every or 0, reporting, observing)
    checkpointing = Checkpointing(
        writer,
        recipe.train.save_every,
        state,
        source,
        newest,
        reporting,
        observing,
        validation,
        Best(recipe.train.best),
    )
    learning = [] if mixing.learning is None else [WeightLearning(mixing.learning)]
    trainer.callbacks.extend(  # type: ignore[attr-defined]
        [
            Guarding(run_folder, attempt),
            Starting(run_folder),
            *learning,
            validation,
            observing,
            reporting,
            checkpointing,
        ]
    )
    # A run that goes back reads on where it was, and so further than its own number of steps.
    stop = None if recipe.train.guard.spike is not None else last + passed
    loader = feed.training_loader(recipe, opened, mixing.mixture, done + passed, stop, run_folder)
    with signals_ask_to_stop(module):
        trainer.fit(module, waiting.over(loader))
    records.close()
    if checkpointing.failure is not None:
        raise CheckpointError(
            f"{checkpoints}: the checkpoint after step {module.progress.done}, the last, could not "
            f"be written: {checkpointing.failure}; start again to repeat what it lost"
        )
    mark_completed(run_folder, module.progress.done, total)
    if module.progress.stopping and module.progress.done < total:
        say(f"stopped after step {module.progress.done}, saved; start again to continue")
        sys.exit(STOPPED)


def mark_completed(run_folder: Path, done: int, total: int) -> None:
    """Tell other programs if a run has come to its end."""
    if done >= total and LaunchEnvironment().global_rank() == 0:
        write_atomically(run_folder / "COMPLETED", f"{done}\n")


def make_trainer(strategy: ZeroStrategy, place: LaunchEnvironment, run_folder: Path) -> pl.Trainer:
    """Lightning's trainer, with everything off that we do ourselves."""
    trainer = pl.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=place.local_world_size,
        num_nodes=place.num_nodes,
        strategy=strategy,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=run_folder,
    )
    # Its SIGTERM handler broadcasts inside the signal: ranks that are elsewhere never meet it.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


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


def say(text: str) -> None:
    """Tell the user once, whether the process group still exists or not."""
    if LaunchEnvironment().global_rank() == 0:
        print(text, file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def signals_ask_to_stop(module: PretrainingModule) -> Iterator[None]:
    """The first SIGTERM, SIGINT or SIGUSR1 asks to stop after the step; a second one ends at once.

    The handler only sets a flag: to save inside a signal handler deadlocks. A job of Slurm's hears
    one request twice, from Slurm and by way of its script, which counts as one.
    """
    own_process = os.getpid()
    repeats_s = REPEATS_S if "SLURM_JOB_ID" in os.environ else 0.0
    first: list[float] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own_process:  # a forked process inherited the handler
            os._exit(128 + number)
        if first and time.monotonic() - first[0] >= repeats_s:
            os._exit(128 + number)
        first.append(time.monotonic())
        module.progress.stop_requested = True

    before = {
        number: signal.signal(number, ask)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_own_messages() -> None:
    """Let rank 0 tell what parts have to say, such as what became of their first weights."""
    logger = logging.getLogger("ssl_scale")
    is_first = LaunchEnvironment().global_rank() == 0
    logger.setLevel(logging.INFO if is_first else logging.WARNING)
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
        logger.propagate = False  # else whoever set up the root logger tells it again


def _quiet_libraries() -> None:
    """Silence notices that no user can act on; their own warnings stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for pattern in (".*_all_gather_base.*", ".*_reduce_scatter_base.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message=pattern)
    for module in ("lightning.*", "deepspeed.*", "torch.distributed.*"):
        warnings.filterwarnings("ignore", module=module)
