"""Trying again: bounded, with waits that grow and are drawn, and an end to waiting for a dead peer.

A network fails in bursts: so waits double, and each is drawn anew, lest all processes of a job come
back at once. What will not change by waiting (no such file, no permission, a full disk) is not
tried again.
"""

import errno
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ssl_scale.errors import DataError
from ssl_scale.redact import redact_text

# Drawn from the system: whoever seeds `random` must see no other numbers because of a network.
_DRAW = random.SystemRandom()
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PASSING = (408, 425, 429)
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")
_LONGEST_MESSAGE = 300


class ChangedError(Exception):
    """What came is not what the index speaks of."""


@dataclass(frozen=True)
class Patience:
    """How long to go on.

    Args:
        attempts: how often a thing is tried in all.
        stalled_s: an attempt ends when nothing has come for so many seconds.
        first_wait_s: about the wait after the first failure; each later one is twice as long.
        longest_wait_s: no wait is longer.
    """

    attempts: int = 6
    stalled_s: float = 60.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0

    def wait_s(self, failures: int) -> float:
        """A wait after so many failures: between half and all of its bound."""
        bound = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (failures - 1))
        return _DRAW.uniform(bound / 2, bound)


def persist(action: Callable[[], None], what: str, patience: Patience) -> None:
    """Do it, again if it fails.

    Args:
        action: what is tried.
        what: the address, for messages.
        patience: how often.

    Raises:
        DataError: it failed for good; says how often, why, and what to do.
    """
    for attempt in range(1, patience.attempts + 1):
        try:
            return action()
        except DataError:
            raise
        except Exception as error:  # every back end has errors of its own
            is_passing, remedy = _judge(error)
            if is_passing and attempt < patience.attempts:
                time.sleep(patience.wait_s(attempt))
                continue
            raise DataError(
                f"{redact_text(what)}: must be readable, but failed {attempt} "
                f"{'time' if attempt == 1 else 'times'}, last with {describe(error)}; {remedy} "
                "(nothing of the data was skipped)"
            ) from None  # the cause's text may hold a signed address
    raise ValueError(f"attempts must be at least 1, but is {patience.attempts}")


def describe(error: BaseException) -> str:
    """An error in one line without secrets."""
    text = redact_text(" ".join(f"{type(error).__name__}: {error}".split()))
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "..."


def _judge(error: Exception) -> tuple[bool, str]:
    """Whether an error may pass by itself, and what to do if it does not."""
    status = getattr(error, "status", None)
    if isinstance(error, ChangedError):
        return True, "put back the file that was indexed, or index the data set again"
    if isinstance(error, ImportError):
        return False, "install what it names, for instance `pip install 'ssl-scale[s3]'`"
    if isinstance(error, OSError) and error.errno in _FULL:
        return False, "free some of the disk, or put the cache on another one (data.cache.folder)"
    if isinstance(error, FileNotFoundError):
        return False, "correct the address, or put the file there"
    if isinstance(error, ValueError):  # no such protocol, no such host name
        return False, "correct the address"
    if (
        isinstance(error, PermissionError)
        or status in (401, 403)
        or type(error).__name__ in _NO_CREDENTIALS
    ):
        return False, "give credentials by the environment or the back end's configuration file"
    if isinstance(status, int) and 400 <= status < 500 and status not in _PASSING:
        return False, "correct the address"
    return True, "check the network and the server, then start again"


def supervised(action: Callable[[], None], target: Path, stalled_s: float) -> None:
    """Do it in a thread, and leave it behind when the file that it writes stops growing.

    Not all back ends have a timeout, and a stalled read in this thread could not be ended.

    Args:
        action: writes `target`.
        target: a name that no other attempt uses: a thread left behind may still write there.
        stalled_s: how long the file may stay as it is.

    Raises:
        TimeoutError: nothing came for so long.
    """
    failures: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    threading.Thread(target=work, name="ssl-scale-download", daemon=True).start()
    seen, since = _footprint(target), time.monotonic()
    while not done.wait(min(1.0, stalled_s / 4)):
        now = _footprint(target)
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > stalled_s:
            raise TimeoutError(f"nothing came for {stalled_s:g} seconds")
    if failures:
        raise failures[0]


def _footprint(path: Path) -> tuple[int, int]:
    """Grows with what is written, also where parts of a file are written in any order."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_size, status.st_blocks
