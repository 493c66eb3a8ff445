"""A run with loader workers, killed at random moments: what its ranks do, and what was seen."""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from ssl_scale.train.callbacks.sample_log import FOLDER, read_samples
from tests.train.tiny import fit_ranks, make_recipe

WORKERS = 2
LOGGED = "callbacks={samples: {type: SampleLog}}"
RANKS = 2
PATIENCE_S = 3.0  # for a step, among others' programs

Victims = Literal["one rank", "all ranks"]
Moment = Literal["any", "saving"]


@dataclass(frozen=True)
class Blow:
    """How a run is killed.

    Args:
        victims: who is killed; a launcher ends the other ranks if it was one.
        rank: the one, or the one that kills all.
        steps: that are logged before.
        moment: ``any``, or as soon as a save is under way.
        seconds: to wait then.
    """

    victims: Victims
    rank: int
    steps: int
    moment: Moment
    seconds: float


@dataclass
class Struck:
    """A run that was killed and resumed until its end.

    Args:
        straight: step -> samples of the same run without kills.
        struck: the same of this one.
        kills: how often it was killed.
        attempts: how often the run started.
        by_victims: kills of each kind.
        saves_cut_off: kills that left a save unfinished.
    """

    straight: dict[int, list[tuple[str, str]]]
    struck: dict[int, list[tuple[str, str]]]
    kills: int
    attempts: int
    by_victims: Counter[str] = field(default_factory=Counter)
    saves_cut_off: int = 0


def strike(
    folder: Path,
    kills: int,
    steps: int,
    seed: int,
    *overrides: str,
    victims: Sequence[Victims] = ("one rank",),
    moments: Sequence[Moment] = ("any",),
    workers: int = WORKERS,
) -> Struck:
    """Run once undisturbed in ``straight``, and once in ``struck``, killed again and again.

    Args:
        folder: for everything.
        kills: to deal, as long as the run is not done.
        steps: of the run.
        seed: of the moments.
        overrides: of the recipe.
        victims: of whom one kind is drawn for every kill.
        moments: of which one is drawn for every kill.
        workers: of each rank's loader.
    """
    chance = random.Random(seed)
    recipe = make_recipe(folder, norm="batch")
    told = (f"data.num_workers={workers}", f"train.steps={steps}", "train.save_every=4", LOGGED)
    fit = partial(fit_ranks, recipe, limit_s=steps * PATIENCE_S)
    assert fit(folder / "straight", RANKS, *told, *overrides) == [0] * RANKS
    run = Struck({}, {}, 0, 0)
    while not (folder / "struck" / "COMPLETED").exists():
        run.attempts += 1
        blow = Blow(
            chance.choice(victims),
            chance.randrange(RANKS),
            chance.randint(0, 12),
            moment := chance.choice(moments),
            chance.uniform(0, 0.05 if moment == "any" else 0.002),
        )
        for rank in range(RANKS):
            _process_file(folder / "struck", rank).unlink(missing_ok=True)
        before = drafts(folder / "struck")
        change = partial(fall, folder / "struck", blow) if run.kills < kills else None
        try:
            assert fit(folder / "struck", RANKS, *told, *overrides, change=change) == [0] * RANKS
        except RuntimeError as error:
            if "ended with -9" not in str(error):
                raise
            run.kills += 1
            run.by_victims[blow.victims] += 1
            run.saves_cut_off += bool(drafts(folder / "struck") - before)
    run.straight, run.struck = (read_samples(folder / name) for name in ("straight", "struck"))
    return run


def drafts(run_folder: Path) -> set[Path]:
    """Saves that are under way, or were."""
    return set((run_folder / "checkpoints").glob("step-*.tmp-*"))


def fall(run_folder: Path, blow: Blow) -> None:
    """Let this rank be killed as the blow says, and the others by it."""
    own = int(os.environ["RANK"])
    _process_file(run_folder, own).write_text(str(os.getpid()))
    if own == blow.rank:
        threading.Thread(target=_strike_when_due, args=(run_folder, blow), daemon=True).start()


def die_after(run_folder: Path, rank: int, steps: int, seconds: float) -> None:
    """Let this process, if it is the rank, be killed some time after so many logged steps."""
    fall_alone = Blow("one rank", rank, steps, "any", seconds)
    if int(os.environ["RANK"]) == rank:
        threading.Thread(
            target=_strike_when_due, args=(run_folder, fall_alone), daemon=True
        ).start()


def _strike_when_due(run_folder: Path, blow: Blow) -> None:
    log = run_folder / FOLDER / f"rank-{blow.rank}.jsonl"
    goal = _lines(log) + blow.steps
    while _lines(log) < goal:
        time.sleep(0.002)
    before = drafts(run_folder)
    while blow.moment == "saving" and not drafts(run_folder) - before:
        time.sleep(0.0005)
    time.sleep(blow.seconds)
    if blow.victims == "all ranks":
        for rank in set(range(RANKS)) - {blow.rank}:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.kill(int(_process_file(run_folder, rank).read_text()), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _process_file(run_folder: Path, rank: int) -> Path:
    return run_folder.with_name(f"{run_folder.name}.process-{rank}")


def _lines(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes().count(b"\n")
    return 0
