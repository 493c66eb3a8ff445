"""Whether a run's disk has room for its next checkpoint."""

import contextlib
import shutil
from pathlib import Path

LEAST = 1 << 20


def shortage(run_folder: Path) -> str:
    """What is wrong with the room on the run's disk; empty if there is enough.

    The log that would tell lies on the same disk, and may have had no room for it.
    """
    try:
        free = shutil.disk_usage(run_folder).free
    except OSError:
        return ""
    needed = max(LEAST, _newest_checkpoint(run_folder / "checkpoints"))
    if free >= needed:
        return ""
    return f"{free / 1e6:,.1f} MB are free, but a checkpoint takes {needed / 1e6:,.1f} MB"


def _newest_checkpoint(checkpoints: Path) -> int:
    """Bytes of the newest finished checkpoint; 0 if there is none."""
    for commit in sorted(checkpoints.glob("step-?????????/COMMIT"), reverse=True):
        with contextlib.suppress(OSError):  # it may be pruned meanwhile
            return sum(path.stat().st_size for path in commit.parent.rglob("*") if path.is_file())
    return 0
