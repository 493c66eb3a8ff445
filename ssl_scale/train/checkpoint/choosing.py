"""Which checkpoint a run goes on from: all ranks take the same."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssl_scale import dist
from ssl_scale.checkpoint import layout
from ssl_scale.checkpoint.reader import Reader
from ssl_scale.errors import CheckpointError
from ssl_scale.train.messages import say


def choose(
    checkpoints: Path,
    fingerprint: str,
    may_continue: Callable[[Mapping[str, Any]], bool] | None = None,
) -> Reader | None:
    """The newest checkpoint that every rank can read whole; None if there is none.

    Rank 0 chooses, every rank verifies a share, and a failure on any rank makes all fall back
    together; rank 0 says what any of them met.

    Args:
        checkpoints: the folder of all checkpoints.
        fingerprint: of the recipe.
        may_continue: whether a checkpoint's state, under another fingerprint, will do all the same.

    Raises:
        CheckpointError: the newest one belongs to another recipe.
    """
    named = dist.broadcast_object([path.name for path, _ in layout.valid(checkpoints)])
    for name in named:
        reader, failure = _open(checkpoints / name)
        met = dist.gather_objects(None if failure is None else str(failure))
        if any(met):
            for reason in dict.fromkeys(filter(None, met)):
                say(f"passed over: {reason}")
            continue
        assert reader is not None
        found = reader.state["fingerprint"]
        is_ours = found == fingerprint or (may_continue and may_continue(reader.state))
        if not is_ours:
            raise CheckpointError(
                f"{checkpoints / name}: must be a checkpoint of this recipe (fingerprint "
                f"{fingerprint}), but is of another ({found}); give the run another --name, or "
                "--no-resume to start over"
            )
        return reader
    return None


def _open(folder: Path) -> tuple[Reader | None, CheckpointError | None]:
    try:
        reader = Reader(folder)
        reader.verify(dist.rank(), dist.world_size())
    except CheckpointError as failure:
        return None, failure
    except (OSError, ValueError, KeyError) as failure:
        return None, CheckpointError(f"{folder}: not a checkpoint ({failure})")
    return reader, None
