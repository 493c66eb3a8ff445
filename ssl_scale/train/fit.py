"""``ssl-scale fit``: from a checked recipe and a run folder to a trained system."""

import sys
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import torch

from ssl_scale import dist
from ssl_scale.errors import NotSavedError
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.train import feed
from ssl_scale.train.best import Best
from ssl_scale.train.callbacks.checkpointing import Checkpointing
from ssl_scale.train.callbacks.guarding import Guarding
from ssl_scale.train.callbacks.observing import Observing, build_observers
from ssl_scale.train.callbacks.reporting import Reporting
from ssl_scale.train.callbacks.starting import Starting
from ssl_scale.train.callbacks.validation import Validation
from ssl_scale.train.callbacks.watchdog import Watchdog
from ssl_scale.train.callbacks.weight_learning import WeightLearning
from ssl_scale.train.checkpoint.choosing import choose
from ssl_scale.train.checkpoint.state import StateSource
from ssl_scale.train.checkpoint.writer import Writer
from ssl_scale.train.cluster import LaunchEnvironment
from ssl_scale.train.combinations import check_combinations
from ssl_scale.train.host_memory import keep_freed_memory
from ssl_scale.train.lease.hold import hold
from ssl_scale.train.lease.lease import Lease
from ssl_scale.train.messages import quiet_libraries, say, show_own_messages
from ssl_scale.train.mixing import RunMixture, may_continue
from ssl_scale.train.module import PretrainingModule
from ssl_scale.train.run_folder import begin, make_writable, mark_completed, set_aside
from ssl_scale.train.signals import signals_ask_to_stop
from ssl_scale.train.strategy import ZeroStrategy, zero_config
from ssl_scale.train.waiting import Waiting

STOPPED = 75  # EX_TEMPFAIL: asked to stop, everything saved, start again to continue


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
    quiet_libraries()
    show_own_messages()
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
            Watchdog(run_folder, dist.rank(), dist.world_size(), recipe.train.stuck_after_s),
        ]
    )
    # A run that goes back reads on where it was, and so further than its own number of steps.
    stop = None if recipe.train.guard.spike is not None else last + passed
    loader = feed.training_loader(recipe, opened, mixing.mixture, done + passed, stop, run_folder)
    with signals_ask_to_stop(module):
        trainer.fit(module, waiting.over(loader))
    records.close()
    if checkpointing.failure is not None:
        raise NotSavedError(
            f"{checkpoints}: the checkpoint after step {module.progress.done}, the last, could not "
            f"be written: {checkpointing.failure}; start again to repeat what it lost"
        )
    mark_completed(run_folder, module.progress.done, total)
    if module.progress.stopping and module.progress.done < total:
        say(f"stopped after step {module.progress.done}, saved; start again to continue")
        sys.exit(STOPPED)


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
