"""Starting a run again after a failure, from its newest checkpoint, while that gets it further.

The same rule as in a Slurm job's script (slurm/job/job.sh): only starts that brought no new
checkpoint count, and each of them waits twice as long as the one before.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from .processes import USER_ERRORS, End

BACKOFF_S = 5.0
INTERRUPTED = 130
STOPPED = 75  # the run was asked to stop, and has saved


def run_with_restarts(
    start: Callable[[], End], run_folder: Path, max_restarts: int, backoff_s: float = BACKOFF_S
) -> int:
    """Start a run until it ends well, or for good.

    Never again after somebody asked it to stop, nor after a mistake of the user's.

    Args:
        start: runs all processes to their ends.
        run_folder: where its checkpoints are.
        max_restarts: the run is given up after so many starts in a row that brought no new
            checkpoint, not counting the first of them; 0 means that it is started once.
        backoff_s: before the first of these; each further one waits twice as long.

    Returns:
        The exit code of the last start.
    """
    try:
        return _start_until_done(start, run_folder, max_restarts, backoff_s)
    except KeyboardInterrupt:  # between two starts
        return INTERRUPTED


def _start_until_done(
    start: Callable[[], End], run_folder: Path, max_restarts: int, backoff_s: float
) -> int:
    stalled = 0
    while True:
        began_at = newest_step(run_folder)
        end = start()
        if end.code in (0, STOPPED, *USER_ERRORS) or end.was_signalled or max_restarts == 0:
            return end.code
        reached = newest_step(run_folder)
        stalled = 0 if reached > began_at else stalled + 1
        if stalled > max_restarts:
            _tell(
                f"{stalled} starts in a row brought no new checkpoint beyond step {reached}, so "
                "the run is not started again (--max-restarts); mend what its log tells, and start "
                "it again"
            )
            return end.code
        if stalled == 0:
            _tell(f"starting again from step {reached}")
            continue
        delay_s = backoff_s * 2 ** (stalled - 1)
        _tell(
            f"no new checkpoint since step {began_at}; start {stalled} of at most {max_restarts} "
            f"in {delay_s:g} s"
        )
        time.sleep(delay_s)


def newest_step(run_folder: Path) -> int:
    """The step of a run's newest finished checkpoint; 0 if there is none."""
    finished = run_folder.glob(f"checkpoints/step-{'[0-9]' * 9}/COMMIT")
    return max((int(path.parent.name.removeprefix("step-")) for path in finished), default=0)


def _tell(message: str) -> None:
    print(f"ssl-launch: {message}", file=sys.stderr, flush=True)
