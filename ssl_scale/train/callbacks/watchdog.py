"""Finds a run that is stuck, says which rank the others wait for, and ends it on every rank.

A rank tells in ``heartbeats/rank-R.json`` how far it is and where its main thread stands. If no
step ends for too long, every rank keeps its stacks in ``logs/stuck-rank-R.txt`` and ends, so that
no host goes on holding what it holds; the launcher ends what cannot end itself.
"""

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from ssl_scale.train.module import PretrainingModule, Progress

STUCK = 70  # EX_SOFTWARE
FOLDER = "heartbeats"
WAITED_FOR = "waited-for"
_COLLECTIVES = (os.path.join("torch", "distributed"), os.path.join("ssl_scale", "dist.py"))


class Watchdog(pl.Callback):
    """Beats while steps end, held-out ones too; comes last, after a save has been handed over.

    Args:
        run_folder: of the run.
        rank: this process.
        world_size: all processes.
        stuck_after_s: time without a step after which the run is stuck.
        every_s: between two heartbeats.
    """

    def __init__(
        self,
        run_folder: Path,
        rank: int,
        world_size: int,
        stuck_after_s: float,
        every_s: float = 10.0,
    ) -> None:
        self.run_folder, self.rank, self.world_size = run_folder, rank, world_size
        self.stuck_after_s, self.every_s = stuck_after_s, min(every_s, stuck_after_s / 4)
        self._progress = Progress(1)
        self._beats = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to watch."""
        assert isinstance(pl_module, PretrainingModule)
        if self.rank == 0:
            with suppress(OSError):
                (self.run_folder / FOLDER / WAITED_FOR).unlink(missing_ok=True)
        self._progress = pl_module.progress
        self._progress.move()
        self._beat(0.0)  # a rank that is never heard of again was on this host
        self._thread.start()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """No step is to come."""
        self._ended.set()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """The run ends by itself."""
        self._ended.set()

    def _watch(self) -> None:
        looked_at = time.monotonic()
        while not self._ended.wait(self.every_s):
            before, looked_at = looked_at, time.monotonic()
            late_s = looked_at - before - self.every_s
            if late_s > self.every_s:
                # We were stopped, as Slurm's suspending does: nothing could move meanwhile.
                self._progress.moved_at = min(looked_at, self._progress.moved_at + late_s)
            silent_s = looked_at - self._progress.moved_at
            self._beat(silent_s)
            if silent_s > self.stuck_after_s:
                self._give_up()

    def _beat(self, silent_s: float) -> None:
        self._beats += 1
        main = threading.main_thread().ident
        stands, collective = where_it_stands(sys._current_frames().get(main or 0))
        beat = {
            "rank": self.rank, "host": _host(), "pid": os.getpid(),
            "beats": self._beats, "step": self._progress.done,
            "seconds_since_step": round(silent_s, 1),
            "stands": stands, "collective": collective,
        }  # fmt: skip
        path = self.run_folder / FOLDER / f"rank-{self.rank}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}")
            draft.write_text(json.dumps(beat))
            draft.rename(path)
        except OSError:
            pass  # who cannot be heard is not therefore stuck

    def _give_up(self) -> None:
        stacks = self.run_folder / "logs" / f"stuck-rank-{self.rank}.txt"
        try:
            stacks.parent.mkdir(parents=True, exist_ok=True)
            with stacks.open("w") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:
            sys.stderr.write(f"{stacks} cannot be written: {error}\n")
        # The others come to the same end, each by its own clock, two beats apart at most.
        before = read_beats(self.run_folder)
        for _ in range(4):
            time.sleep(self.every_s / 2)
            self._beat(time.monotonic() - self._progress.moved_at)
        now = read_beats(self.run_folder)
        told = verdict(before, now, self.world_size)
        self._leave(culprits(before, now, self.world_size), now)
        sys.stderr.write(
            f"error: step {self._progress.done + 1} has not ended in {self.stuck_after_s:g} s "
            f"(train.stuck_after_s): {told}; stacks: {stacks.parent}/stuck-rank-*.txt; start again "
            "to continue\n"
        )
        sys.stderr.flush()
        os._exit(STUCK)

    def _leave(self, ranks: list[int], now: dict[int, dict[str, Any]]) -> None:
        """Leave for the launcher who is to blame, a line a rank: ``RANK HOST``.

        The first who finds out is believed: by and by all end, and give no sign of life.
        """
        path = self.run_folder / FOLDER / WAITED_FOR
        try:
            with path.open("x") as file:
                file.writelines(f"{rank} {now[rank]['host']}\n" for rank in ranks if rank in now)
        except FileExistsError:
            pass
        except OSError as error:
            sys.stderr.write(f"{path} cannot be written: {error}\n")


def _host() -> str:
    # Slurm's own name for it is the one that Slurm can leave out next time.
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def where_it_stands(frame: FrameType | None) -> tuple[str, str | None]:
    """The innermost place in a thread, and the collective that it is in, if it is in one."""
    assert frame is not None, "a thread that runs has a frame"
    code = frame.f_code
    place = f"{code.co_name} ({'/'.join(Path(code.co_filename).parts[-2:])}:{frame.f_lineno})"
    collective, outer = None, frame
    while outer is not None:
        if any(name in outer.f_code.co_filename for name in _COLLECTIVES):
            collective = outer.f_code.co_name
        elif collective is not None:
            break
        outer = outer.f_back  # type: ignore[assignment]
    return place, collective


def read_beats(run_folder: Path) -> dict[int, dict[str, Any]]:
    """The last heartbeat of each rank that has one."""
    beats = {}
    for path in (run_folder / FOLDER).glob("rank-*.json"):
        try:
            beat = json.loads(path.read_text())
            beats[int(beat["rank"])] = beat
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return beats


def silent(
    before: dict[int, dict[str, Any]], now: dict[int, dict[str, Any]], world_size: int
) -> list[int]:
    """Ranks that have given no heartbeat since `before`."""
    return [
        rank
        for rank in range(world_size)
        if rank not in now or now[rank]["beats"] == before.get(rank, {}).get("beats")
    ]


def busy(now: dict[int, dict[str, Any]], world_size: int) -> list[int]:
    """Ranks that are in no collective while others are."""
    found = [rank for rank, beat in sorted(now.items()) if beat["collective"] is None]
    return found if len(found) < world_size else []


def culprits(
    before: dict[int, dict[str, Any]], now: dict[int, dict[str, Any]], world_size: int
) -> list[int]:
    """Whom the others wait for: ranks without a heartbeat, else those that are in no collective.

    Args:
        before: heartbeats of a while ago.
        now: those of now.
        world_size: all ranks.
    """
    return silent(before, now, world_size) or busy(now, world_size)


def verdict(
    before: dict[int, dict[str, Any]], now: dict[int, dict[str, Any]], world_size: int
) -> str:
    """What `culprits` finds, in words."""
    if dead := silent(before, now, world_size):
        return f"{_ranks(dead, now)} {'gives' if len(dead) == 1 else 'give'} no sign of life"
    if late := busy(now, world_size):
        return f"the others wait for {_ranks(late, now)}, in {now[late[0]]['stands']}"
    places = sorted({str(beat["collective"] or beat["stands"]) for beat in now.values()})
    return f"all ranks are in {', '.join(places[:4])}"


def _ranks(ranks: list[int], beats: dict[int, dict[str, Any]]) -> str:
    named = [
        f"rank {rank}" + (f" on {beats[rank]['host']}" if rank in beats else "")
        for rank in ranks[:3]
    ]
    return ", ".join(named) + (f" and {len(ranks) - 3} more" if len(ranks) > 3 else "")
