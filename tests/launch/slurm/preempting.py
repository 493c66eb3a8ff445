"""Preempts a run on the private cluster: each rank is told on its own, not quite at once."""

import random
import signal
import time
from dataclasses import dataclass

from ssl_scale_launch.slurm.watch.growing_metrics import GrowingMetrics

from tests.launch.slurm.submitted import Submitted

LIMIT_S = 180.0
APART_S = 0.02
MOST_STEPS = 20


@dataclass(frozen=True)
class Preempted:
    """How long each part of a preemption took.

    Args:
        stopping_s: from the first rank's signal until all have saved and ended.
        waiting_s: until the job's script ran again: the scheduler's own delay.
        starting_s: until the first new step was done.
        lost: steps that had to be done again.
    """

    stopping_s: float
    waiting_s: float
    starting_s: float
    lost: int

    @property
    def own_s(self) -> float:
        """From the signal to running again, without the scheduler's delay."""
        return self.stopping_s + self.starting_s


class Preemptor:
    """Preempts a run again and again.

    Args:
        run: of so many ranks.
        ranks: of it.
        seed: of steps between preemptions, signals, their order and their distance.
    """

    def __init__(self, run: Submitted, ranks: int, seed: int) -> None:
        self._run, self._ranks, self._chance = run, ranks, random.Random(seed)
        self._metrics = GrowingMetrics(run.folder)
        self._done = {0: 0}  # start of the run -> steps done when it ended
        self._began_at = 0
        self._count = 0

    def preempt(self) -> Preempted:
        """Preempt it once it has done some steps, and wait until it does the next."""
        self._count += 1
        self._wait_for_steps(self._count, self._chance.randint(1, MOST_STEPS))
        ranks = [self._run.rank(number) for number in range(self._ranks)]
        self._chance.shuffle(ranks)
        number = self._chance.choice((signal.SIGTERM, signal.SIGUSR1))
        began = time.monotonic()
        for rank in ranks:
            rank.send(number)
            time.sleep(self._chance.uniform(0, APART_S))
        stopped = self._wait_for_log("the ranks have stopped after step", self._count)
        started = self._wait_for_log(f"restart {self._count}, on", 1)
        again = self._wait_for_steps(self._count + 1, 1)
        lost = self._done[self._count] - self._began_at
        return Preempted(stopped - began, started - stopped, again - started, lost)

    def _wait_for_steps(self, attempt: int, steps: int) -> float:
        """Wait until a start of the run has done so many; returns when that was."""

        def are_done() -> bool:
            for line in self._metrics.new_lines():
                if line["kind"] == "superseded":
                    self._began_at = max(0, line["after_step"])
                elif line["kind"] == "train":
                    self._done[line["attempt"]] = line["step"]
            return self._done.get(attempt, 0) - self._began_at >= steps

        self._run.wait_for(f"step {steps} of start {attempt}", are_done, LIMIT_S)
        return time.monotonic()

    def _wait_for_log(self, text: str, times: int) -> float:
        self._run.wait_for(text, lambda: self._run.log.count(text) >= times, LIMIT_S)
        return time.monotonic()
