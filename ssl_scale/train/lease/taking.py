"""Taking a run's folder: at once if it is free, from a dead holder, or not at all.

Several may want to follow the same dead holder, so each first makes ``RUNNING.after-<its token>``
with its own page; that succeeds for one, and only that one replaces the lease. It may be killed on
the way: then it stands in line behind the dead holder, and is followed like any holder.
"""

import time
from collections.abc import Callable
from pathlib import Path

from ssl_scale.checkpoint.layout import sync
from ssl_scale.errors import SslScaleError
from ssl_scale.train.lease.holder import Holder
from ssl_scale.train.lease.page import Page, create, read

GLANCE_S = 0.5


def take(path: Path, me: Holder, missed: int, say: Callable[[str], None]) -> None:
    """Make the lease ours.

    Args:
        path: the lease's file, in a folder that exists.
        me: who takes it.
        missed: beats that a silent holder must miss until it counts as dead.
        say: tells the user why it takes time, and who was followed.

    Raises:
        SslScaleError: another run holds the folder, or nothing can be written there.
    """
    try:
        while not _try(path, me, missed, say):
            pass
    except OSError as error:
        raise SslScaleError(
            f"{path}: must be a file that can be written, but is not ({error}); mend the run's "
            "folder, or choose another with --run-folder"
        ) from error


def _try(path: Path, me: Holder, missed: int, say: Callable[[str], None]) -> bool:
    """Try once; False if the lease changed hands meanwhile."""
    seen = _line(path)
    if not seen:
        return create(path, Page.of(me, 0))
    reason = _watch(path, seen, me, missed, say)
    if reason is None or not _follow(path, seen, Page.of(me, 0)):
        return False
    say(f"{path}: taken over from {seen[-1]}: {reason}")
    return True


def _line(path: Path) -> list[Page]:
    """The holder, who is about to follow it, who is about to follow that one, and so on."""
    line: list[Page] = []
    page = read(path)
    while page is not None and page not in line:
        line.append(page)
        page = read(_after(path, page))
    return line


def _after(path: Path, page: Page) -> Path:
    return path.with_name(f"{path.name}.after-{page.token}")


def _watch(
    path: Path, seen: list[Page], me: Holder, missed: int, say: Callable[[str], None]
) -> str | None:
    """Wait until the holder is known to be dead; None if it gives the folder back meanwhile."""
    holder = seen[-1].holder
    beat_s = me.beat_s if holder is None else holder.beat_s
    began, waited = time.monotonic(), 0.0
    while (now := _line(path)) == seen:
        if holder is not None and (reason := me.why_gone(holder)):
            return reason
        if waited > missed * beat_s:
            return f"no sign of life in {waited:.3g} s"
        if not waited:
            say(
                f"{path}: held by {seen[-1]}; waiting for a sign of life, if none comes for "
                f"{missed * beat_s:g} s"
            )
        time.sleep(min(beat_s / 4, GLANCE_S))
        waited = time.monotonic() - began
    if not now:
        return None
    raise SslScaleError(
        f"{path.parent}: must be the folder of one run at a time, but {now[-1]} trains in it and "
        f"gave a sign of life less than {beat_s:g} s ago; wait until that run has ended or stop it "
        "(on SIGTERM it saves first), or give this one another --name or --run-folder"
    )


def _follow(path: Path, seen: list[Page], mine: Page) -> bool:
    """Replace a dead holder; False if another does so, or if all is not as it was."""
    claim = _after(path, seen[-1])
    if not create(claim, mine):
        return False
    if _line(path) != [*seen, mine]:
        claim.unlink()
        return False
    claim.replace(path)
    for page in seen:
        for leftover in (_after(path, page), page.draft(path.parent)):
            leftover.unlink(missing_ok=True)
    sync(path.parent)
    return True
