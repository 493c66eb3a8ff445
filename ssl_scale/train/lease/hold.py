"""A run's folder, held by rank 0 for all ranks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_scale import dist
from ssl_scale.train.lease.holder import Holder
from ssl_scale.train.lease.lease import Lease
from ssl_scale.train.lease.taking import take

NAME = "RUNNING"
BEAT_S = 3.0
MISSED = 40  # two minutes: on NFS a host may see what is up to a minute old


@contextmanager
def hold(run_folder: Path, say: Callable[[str], None]) -> Iterator[Lease | None]:
    """Hold a run's folder; on ranks other than 0 there is nothing to see of it.

    Args:
        run_folder: exists.
        say: tells the user why it takes time, and who was followed.

    Raises:
        SslScaleError: on all ranks: another run holds it, or nothing can be written there.
    """
    leases: list[Lease] = []

    def hold_here() -> None:
        path, me = run_folder / NAME, Holder.here(BEAT_S)
        take(path, me, MISSED, say)
        leases.append(Lease(path, me))

    try:
        dist.from_rank_0(hold_here)
        yield leases[0] if leases else None
    finally:
        for lease in leases:
            lease.release()
