"""A run with loader workers, killed at random moments: what its ranks do, and what was seen."""

import contextlib
import os
import random
import signal
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ssl_scale.train.callbacks.sample_log import FOLDER, read_samples
from tests.train.tiny import fit_ranks, make_recipe

WORKERS = 2
LOGGED = "callbacks={samples: {type: SampleLog}}"


@dataclass
class Struck:
    """A run that was killed and resumed until its end.

    Args:
        straight: step -> samples of the same run without kills.
        struck: the same of this one.
        kills: how often a rank was killed.
        attempts: how often the run started.
    """

    straight: dict[int, list[tuple[str, str]]]
    struck: dict[int, list[tuple[str, str]]]
    kills: int
    attempts: int


def strike(folder: Path, kills: int, steps: int, seed: int, *overrides: str) -> Struck:
    """Run once undisturbed, and once with a random rank killed at a random moment, again and again.

    Args:
        folder: for everything.
        kills: to deal, as long as the run is not done.
        steps: of the run.
        seed: of the moments.
        overrides: of the recipe.
    """
    chance = random.Random(seed)
    recipe = make_recipe(folder)
    told = (f"data.num_workers={WORKERS}", f"train.steps={steps}", "train.save_every=4", LOGGED)
    fit = partial(fit_ranks, recipe)
    assert fit(folder / "straight", 2, *told, *overrides) == [0, 0]
    dealt = attempts = 0
    while not (folder / "struck" / "COMPLETED").exists():
        attempts += 1
        change = None
        if dealt < kills:
            moment = chance.randrange(2), chance.randint(0, 12), chance.uniform(0, 0.05)
            change = partial(die_after, folder / "struck", *moment)
        try:
            assert fit(folder / "struck", 2, *told, *overrides, change=change) == [0, 0]
        except RuntimeError as error:
            if "ended with -9" not in str(error):
                raise
            dealt += 1
    seen = (read_samples(folder / name) for name in ("straight", "struck"))
    return Struck(*seen, dealt, attempts)


def die_after(run_folder: Path, rank: int, steps: int, seconds: float) -> None:
    """Let this process, if it is the rank, be killed some time after so many logged steps."""
    if int(os.environ["RANK"]) != rank:
        return
    log = run_folder / FOLDER / f"rank-{rank}.jsonl"
    goal = _lines(log) + steps

    def die() -> None:
        while _lines(log) < goal:
            time.sleep(0.002)
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=die, daemon=True).start()


def _lines(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes().count(b"\n")
    return 0
