"""What bounds a loader, and what to change, from its timings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .loader_bench import Speed

# Less than this is noise, or not worth a process.
_WORTHWHILE = 1.1


@dataclass(frozen=True)
class Bound:
    """Why the loader is no faster.

    Args:
        by: ``workers``, ``CPUs``, ``disk``, ``decode`` or ``collate``.
        because: the figures that say so.
        change: what would help.
    """

    by: str
    because: str
    change: str


def draw_table(speeds: Sequence[Speed], own: int) -> str:
    """A line for each number of workers; the shares are of the time that making steps took."""
    lines = [
        f"{'workers':<12} {'samples/s':>10} {'MB/s':>8} {'first step':>11} "
        f"{'read':>7} {'decode':>7} {'collate':>8} {'bad':>5}"
    ]
    for speed in speeds:
        name = f"{speed.workers} (recipe)" if speed.workers == own else f"{speed.workers}"
        read, decode, collate = (f"{share:.0%}" for share in _shares(speed).values())
        lines.append(
            f"{name:<12} {speed.samples_per_s:>10,.0f} "
            f"{speed.read_bytes / speed.seconds / 1e6:>8,.1f} {speed.first_s:>9.2f} s "
            f"{read:>7} {decode:>7} {collate:>8} {speed.bad:>5}"
        )
    return "\n".join(lines)


def find_bound(speeds: Sequence[Speed], fields: Mapping[str, float], own: int, cpus: int) -> Bound:
    """What bounds the loader with the recipe's number of workers.

    Args:
        speeds: of at least one number of workers.
        fields: microseconds of decoding by field.
        own: the recipe's number of workers; if it was not tried, the nearest that was.
        cpus: that this process may use.
    """
    now = min(speeds, key=lambda speed: abs(speed.workers - own))
    enough = _fewest_of_the_fastest(speeds)
    gain = enough.samples_per_s / now.samples_per_s
    if gain > _WORTHWHILE:
        return Bound(
            "workers",
            f"{now.workers} make {now.samples_per_s:,.0f} samples/s, {enough.workers} make "
            f"{gain:.1f} times as many",
            f"set data.num_workers to {enough.workers}",
        )
    shares = _shares(now)
    part = max(shares, key=lambda name: shares[name])
    most = f"{shares[part]:.0%} of the time that making steps takes"
    if part == "read":
        rate = now.read_bytes / now.seconds / 1e6
        return Bound(
            "disk",
            f"reading is {most}, at {rate:,.1f} MB/s",
            "put the shards on a faster disk (a node's own, or data.cache on it), or store smaller "
            "files; if the reads wait rather than transfer, more data.num_workers overlap them",
        )
    wide = "; more CPUs for each rank would help too" if now.workers >= cpus else ""
    if part == "decode":
        slowest = max(fields, key=lambda name: fields[name])
        took = f", and {slowest!r} takes longest of all fields ({fields[slowest]:,.0f} us)"
        return Bound(
            "CPUs" if now.workers >= cpus else "decode",
            f"decoding is {most}{took}",
            f"store {slowest!r} nearer to the size it is used at (smaller pictures, shorter texts)"
            f"{wide}",
        )
    return Bound(
        "collate",
        f"putting batches together is {most}",
        f"give fields one shape, so that they are decoded into the batch{wide}",
    )


def _fewest_of_the_fastest(speeds: Sequence[Speed]) -> Speed:
    """The fewest workers that come near the fastest."""
    fastest = max(speed.samples_per_s for speed in speeds)
    near = [speed for speed in speeds if speed.samples_per_s * _WORTHWHILE >= fastest]
    return min(near, key=lambda speed: speed.workers)


def _shares(speed: Speed) -> dict[str, float]:
    """Of reading, decoding and collating."""
    parts = {"read": speed.read_ms, "decode": speed.decode_ms, "collate": speed.collate_ms}
    whole = sum(parts.values()) or 1.0
    return {name: part / whole for name, part in parts.items()}
