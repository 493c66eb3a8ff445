"""Saving: every rank its own part, in the background; rank 0 commits when all parts are there.

Nothing that is saved changes before the next optimizer step, so also the copy to host memory is
made in the background, while the next forward and backward passes run; only the step waits for it.

No collective runs in the background: it would mix with those of the main thread. Rank 0's writer
waits for the other parts by looking at the folder.
"""

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_scale.checkpoint import layout
from ssl_scale.checkpoint.tensor_file import write_tensors
from ssl_scale.errors import CheckpointError
from ssl_scale.train.checkpoint.contents import Contents
from ssl_scale.train.checkpoint.host_copies import HostCopies


class Writer:
    """Saves checkpoints of a run, one at a time.

    Args:
        checkpoints: the folder that holds them.
        rank: this process.
        world_size: all processes.
        attempt: how often the run was started; keeps the leftovers of different attempts apart.
        keep_last: how many of the newest stay.
        keep_every: checkpoints at multiples of this step stay too; 0 means none.
        patience_s: how long rank 0 waits for the others' parts.
        may_commit: raises if rank 0 must not write there any more.
    """

    def __init__(
        self,
        checkpoints: Path,
        rank: int,
        world_size: int,
        attempt: int,
        keep_last: int = 2,
        keep_every: int = 0,
        patience_s: float = 1800.0,
        may_commit: Callable[[], None] | None = None,
    ) -> None:
        self.checkpoints = checkpoints
        self.rank = rank
        self.world_size = world_size
        self.attempt = attempt
        self.keep_last = keep_last
        self.keep_every = keep_every
        self.patience_s = patience_s
        self.may_commit = may_commit
        self.pinned: tuple[int, ...] = ()
        self._saves = 0
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._host = HostCopies()
        self._copied = threading.Event()
        self._copied.set()

    def save(self, step: int, part: Contents, state: dict[str, Any]) -> None:
        """Begin to save; an earlier save is finished first.

        Args:
            step: optimizer steps done.
            part: this rank's slices; they must not change until `wait_copied` has returned.
            state: counters and descriptions; rank 0's is kept.
        """
        self.join()
        self._saves += 1  # counted alike on all ranks, since they save together
        self._copied.clear()
        self._thread = threading.Thread(target=self._write_guarded, args=(step, part, state))
        self._thread.start()

    def wait_copied(self) -> None:
        """Wait until what is being saved may change."""
        self._copied.wait()

    def join(self) -> str | None:
        """Wait for the save under way; the reason, if it failed (the run goes on)."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        return None if failure is None else f"{type(failure).__name__}: {failure}"

    def _write_guarded(self, step: int, part: Contents, state: dict[str, Any]) -> None:
        try:
            try:
                pieces = self._host.take(part.pieces)
            finally:
                self._copied.set()
            self._write(step, replace(part, pieces=pieces), state)
        except Exception as failure:
            self._failure = failure
            if self.rank == 0:  # a draft left on a full disk would keep it full
                shutil.rmtree(self._draft(step), ignore_errors=True)
                return
            with contextlib.suppress(OSError):  # an empty note says enough
                self._draft(step).mkdir(parents=True, exist_ok=True)  # rank 0 may come later
                _failure_note(self._draft(step), self.rank).write_text(str(failure))

    def _write(self, step: int, part: Contents, state: dict[str, Any]) -> None:
        final = self.checkpoints / layout.folder_name(step)
        folder = self._draft(step)
        folder.mkdir(parents=True, exist_ok=True)
        write_part(folder, self.rank, self.world_size, step, part)
        if self.rank != 0:
            return
        parts = wait_for_parts(folder, self.world_size, self.patience_s)
        if self.may_commit is not None:
            self.may_commit()
        commit(folder, final, step, parts, state)
        for leftover in self.checkpoints.glob("step-*.tmp-*"):
            # Other ranks may be at the next one already, but no further.
            if not leftover.name.endswith(f".tmp-{self.attempt}-{self._saves + 1}"):
                shutil.rmtree(leftover, ignore_errors=True)
        # This one stays even if a newer one, whose bytes are damaged, is still there.
        layout.retain(self.checkpoints, self.keep_last, self.keep_every, (*self.pinned, step))

    def _draft(self, step: int) -> Path:
        # A run that has gone back saves a step again: of a save that failed it must find nothing.
        return self.checkpoints / f"{layout.folder_name(step)}.tmp-{self.attempt}-{self._saves}"


def write_part(folder: Path, rank: int, world_size: int, step: int, part: Contents) -> None:
    """Write one rank's tensors and then, whole, the page that describes them."""
    stem = layout.part_name(rank)
    data = folder / f"{stem}.safetensors"
    checksum = write_tensors(data, {key: piece.values for key, piece in part.pieces.items()})
    page = {
        "rank": rank,
        "world_size": world_size,
        "step": step,
        "file": data.name,
        "bytes": data.stat().st_size,
        "xxh3": checksum,
        "tensors": {
            key: {"start": piece.start, "shape": list(piece.shape)}
            for key, piece in part.pieces.items()
        },
        "counters": part.counters,
    }
    draft = folder / f".{stem}.json"
    layout.write_durably(draft, json.dumps(page).encode())
    layout.sync(folder)
    # Rank 0 may rename the folder as soon as it sees this: it flushes the name.
    draft.rename(folder / f"{stem}.json")


def wait_for_parts(folder: Path, world_size: int, patience_s: float) -> list[dict[str, Any]]:
    """The pages of all ranks, once they are there.

    Raises:
        CheckpointError: some rank could not write its part, or not in time.
    """
    paths = [folder / f"{layout.part_name(rank)}.json" for rank in range(world_size)]
    deadline = time.monotonic() + patience_s
    while missing := [path.name for path in paths if not path.exists()]:
        for rank in range(world_size):
            if (note := _failure_note(folder, rank)).exists():
                raise CheckpointError(f"rank {rank} could not write its part: {note.read_text()}")
        if time.monotonic() > deadline:
            raise CheckpointError(f"{folder}: {missing} did not appear in {patience_s:g} s")
        time.sleep(0.01)
    return [json.loads(path.read_bytes()) for path in paths]


def _failure_note(folder: Path, rank: int) -> Path:
    return folder / f"{layout.part_name(rank)}.failed"


def commit(
    folder: Path, final: Path, step: int, parts: list[dict[str, Any]], state: dict[str, Any]
) -> None:
    """Turn a finished folder into a checkpoint."""
    files: dict[str, Any] = {}
    for rank, part in enumerate(parts):
        page = folder / f"{layout.part_name(rank)}.json"
        files[part["file"]] = {"bytes": part["bytes"], "xxh3": part["xxh3"]}
        files[page.name] = {"bytes": page.stat().st_size, "xxh3": layout.checksum(page)}
    content = {
        "version": layout.VERSION,
        "step": step,
        "world_size": len(parts),
        "files": files,
        "state": state,
    }
    layout.write_durably(folder / layout.COMMIT, layout.seal(content))
    layout.sync(folder)
    if final.exists():  # the same step, saved again after a resume
        layout.put_in_trash(final)
    folder.rename(final)
    layout.sync(final.parent)
