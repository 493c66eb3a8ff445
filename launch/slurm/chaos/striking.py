"""Deals blows to a job that trains, and watches what becomes of it."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ssl_scale.errors import SslScaleError

from ..client.jobs import ask_slurm
from ..watch.growing_metrics import GrowingMetrics
from .blows import Blow, Dealt
from .strikes import Refused, Target

LOOK_S = 0.2
# The controller serves many users, and is asked less often than our own files.
ASK_S = 5.0
# Until a job that has ended without a trace of success has failed: a file may reach us late over
# NFS, a job may be on its way back to the queue, and Slurm may be out of reach for a while.
PATIENCE_S = {"COMPLETED": 90.0, "unknown to Slurm": 900.0}
LEAST_PATIENCE_S = 10.0


class Striker:
    """A job that is struck.

    Args:
        folder: of its run.
        job: Slurm's number.
        say: tells what happens.
    """

    def __init__(self, folder: Path, job: str, say: Callable[[str], None]) -> None:
        self._folder, self._job, self._say = folder, job, say
        self._metrics = GrowingMetrics(folder)
        self._attempt = 0  # which start of the run the last record is of
        self._began = 0  # the step that this start went on from
        self._step = 0
        self._records = 0
        self._spacing_s = 0.0  # between the last two records
        self._written = 0.0  # when the last one was, by the clock of who wrote it
        self._recorded = self._asked = self._alive = time.monotonic()
        self._lost = 0  # steps that this start does again

    def deal(self, blows: Sequence[Blow], chance: random.Random) -> Iterator[Dealt]:
        """Deal blows, as long as the run is not done.

        Each start of the run may save before it is struck: one that never does is given up, and
        rightly so.

        Args:
            blows: in the order of their steps.
            chance: draws another kind instead of one that this cluster does not allow.

        Raises:
            SslScaleError: the job has ended, but the run is not done; or no kind is allowed.
        """
        kinds = sorted({blow.kind for blow in blows})
        for blow in blows:
            kind = blow.kind if blow.kind in kinds else chance.choice(kinds)
            while self._wait_until_due(blow):
                try:
                    dealt = self._strike(kind, blow)
                except Refused as refused:
                    kinds.remove(kind)
                    if not kinds:
                        raise
                    self._say(f"{kind} is not possible on this cluster ({refused})")
                    kind = chance.choice(kinds)
                    continue
                if dealt is not None:
                    yield dealt
                    break

    def wait_for_end(self) -> None:
        """Wait until the run is done.

        Raises:
            SslScaleError: the job has ended, but the run is not done.
        """
        while self._goes_on():
            time.sleep(LOOK_S)

    def _wait_until_due(self, blow: Blow) -> bool:
        """Wait for a blow's moment; False if the run is done before."""
        records = self._records  # older ones may be of a start that has ended
        while self._goes_on():
            is_late = self._step >= blow.step and self._records > records
            if is_late and self._newest_checkpoint() > self._began:
                time.sleep(min(blow.moment * self._spacing_s, ASK_S))
                return True
            time.sleep(LOOK_S)
        return False

    def _strike(self, kind: str, blow: Blow) -> Dealt | None:
        """Strike and wait until the run trains again; None if nobody was hit."""
        target = Target.find(self._job)
        if target is None:
            time.sleep(LOOK_S)
            return None
        self._look()
        attempt, began = self._attempt, time.monotonic()
        victim = target.strike(kind, blow.rank, blow.pause_s)
        if not victim:
            return None
        self._look()
        step, records = self._step, self._records
        self._say(f"{kind} ({victim}) at step {step:,}")
        while self._goes_on():
            is_again = self._records > records if kind == "suspend" else self._attempt > attempt
            if is_again:
                again_s = self._recorded - began
                redone = 0 if kind == "suspend" else self._lost
                self._say(f"trains again after {again_s:.1f} s; does {redone:,} steps again")
                return Dealt(kind, victim, step, again_s, redone)
            time.sleep(LOOK_S)
        return None

    def _look(self) -> None:
        """Read what the run has recorded since the last look."""
        for line in self._metrics.new_lines():
            now = time.monotonic()
            if line.get("kind") == "superseded":
                self._began = max(0, int(line["after_step"]))
                self._lost = max(0, self._step - self._began)
            elif line.get("kind") == "train":
                if line["attempt"] == self._attempt:
                    self._spacing_s = max(0.0, float(line["time"]) - self._written)
                self._written = float(line["time"])
                self._attempt, self._step = int(line["attempt"]), int(line["step"])
                self._records += 1
                self._recorded = now

    def _goes_on(self) -> bool:
        """Whether the run is still to be done, after another look at its folder."""
        self._look()
        if (self._folder / "COMPLETED").exists():
            return False
        if time.monotonic() - self._asked > ASK_S:
            self._ask()
        return True

    def _ask(self) -> None:
        self._asked = time.monotonic()
        state = ask_slurm(self._job)
        if state is not None and not state.is_over:
            self._alive = self._asked
            return
        told = "unknown to Slurm" if state is None else state.state
        if self._asked - self._alive > PATIENCE_S.get(told, LEAST_PATIENCE_S):
            raise SslScaleError(
                f"job {self._job} must train {self._folder} until it is done, but is {told}; see: "
                f"ssl-launch logs {self._folder}"
            )

    def _newest_checkpoint(self) -> int:
        names = [
            path.parent.name for path in self._folder.glob("checkpoints/step-?????????/COMMIT")
        ]
        return max((int(name.removeprefix("step-")) for name in names), default=0)
