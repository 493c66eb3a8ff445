"""Which checkpoints of a run may go, decided first and told, then done.

The newest one whose bytes verify stays, and so does the best: they are what a run goes on from and
what it was for.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from ssl_scale.checkpoint import layout
from ssl_scale.checkpoint.listing import best_step, size_of
from ssl_scale.checkpoint.verification import verify


@dataclass(frozen=True)
class Decision:
    """What becomes of one folder, and why.

    Args:
        folder: a checkpoint, or a leftover.
        goes: whether it is deleted.
        why: the reason, for people.
        bytes: size of its files.
    """

    folder: Path
    goes: bool
    why: str
    bytes: int


def decide(
    checkpoints: Path, keep_last: int, keep_every: int = 0, leftovers: bool = False
) -> list[Decision]:
    """Look at every folder; nothing is deleted.

    Args:
        checkpoints: the folder that holds them.
        keep_last: how many of the newest valid ones stay, at least 1.
        keep_every: checkpoints at multiples of this step stay too; 0 means none.
        leftovers: whether what dead attempts left goes.
    """
    valid = dict(layout.valid(checkpoints))
    best = best_step(next(iter(valid.values()))) if valid else None
    decisions = []
    is_safe = False  # whether one that verifies is among those that stay
    number = 0
    for folder in layout.candidates(checkpoints):
        commit = valid.get(folder)
        step = layout.step_of(folder)
        if commit is None or step is None:
            why = "stays: it is not whole, so it is no checkpoint; look with `checkpoint verify`"
            decisions.append(Decision(folder, False, why, size_of(folder)))
            continue
        reason = _why_it_stays(step, number, keep_last, keep_every, best)
        number += 1
        if not is_safe:
            is_safe = verify(folder).is_sound
            if not is_safe:
                reason = "its bytes are damaged, which only you can judge"
            elif reason is None or number > 1:
                reason = "the newest whose bytes verify"
        why = f"stays: {reason}" if reason else f"goes: older than the newest {keep_last}"
        decisions.append(Decision(folder, reason is None, why, size_of(folder)))
    why = "goes: a leftover" if leftovers else "stays: a leftover; --leftovers deletes it"
    found = layout.leftovers(checkpoints)
    return decisions + [Decision(path, leftovers, why, size_of(path)) for path in found]


def _why_it_stays(
    step: int, number: int, keep_last: int, keep_every: int, best: int | None
) -> str | None:
    if number < max(keep_last, 1):
        return f"among the newest {max(keep_last, 1)}"
    if step == best:
        return "the best so far"
    if keep_every > 0 and step % keep_every == 0:
        return f"at a multiple of {keep_every}"
    return None


def carry_out(decisions: list[Decision]) -> None:
    """Delete what goes; a checkpoint loses its name before it loses a file."""
    for decision in decisions:
        if not decision.goes:
            continue
        folder = decision.folder
        if layout.step_of(folder) is not None:
            folder = layout.put_in_trash(folder)
        shutil.rmtree(folder)
