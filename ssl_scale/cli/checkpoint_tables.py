"""What ``ssl-scale checkpoint`` prints."""

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_scale.checkpoint.difference import Difference
    from ssl_scale.checkpoint.listing import Listed, Listing
    from ssl_scale.checkpoint.pruning import Decision
    from ssl_scale.checkpoint.reader import Reader
    from ssl_scale.checkpoint.verification import Verdict

_EVERY_S = 0.2  # between two updates of a line


class ReadingProgress:
    """A line about how much of a checkpoint has been read, and how fast; on a terminal only.

    Args:
        folder: the checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.total = sum(path.stat().st_size for path in folder.glob("part-*"))
        self.read = 0
        self.began = time.monotonic()
        self._shown = 0.0

    def __call__(self, count: int) -> None:
        """Some more bytes have been read."""
        self.read += count
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._shown > _EVERY_S:
            self._shown = now
            rate = size(self.read / max(now - self.began, 1e-9))
            line = f"{self.name}: {size(self.read)} of {size(self.total)}, {rate}/s"
            sys.stderr.write(f"\r\033[K{line}")
            sys.stderr.flush()

    def finish(self) -> float:
        """Take the line away; returns how long it took, in seconds."""
        if self._shown:
            sys.stderr.write("\r\033[K")
        return time.monotonic() - self.began


def draw_listing(listing: "Listing") -> str:
    """A table of checkpoints, and what else is there."""
    if not listing.checkpoints and not listing.leftovers:
        return f"{listing.folder} holds no checkpoints\n"
    head = ("step", "saved", "age", "size", "processes", "zero", "precision", "marks")
    rows = [head, *(_row(entry) for entry in listing.checkpoints)]
    text = table(rows) if listing.checkpoints else ""
    broken = [entry for entry in listing.checkpoints if entry.fault is not None]
    if broken:
        text += "\nnot checkpoints:\n" + "".join(f"  {entry.fault}\n" for entry in broken)
    if listing.leftovers:
        text += "\nleftovers, of attempts that died or of one that is saving now:\n"
        text += "".join(f"  {entry.name}  {size(entry.bytes)}\n" for entry in listing.leftovers)
    return text


def _row(entry: "Listed") -> tuple[str, ...]:
    saved = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.saved_at))
    age = duration(max(time.time() - entry.saved_at, 0))
    marks = ", ".join(entry.marks) or "-"
    told = [entry.processes, entry.zero, entry.precision]
    return (
        str(entry.step),
        saved,
        age,
        size(entry.bytes),
        *("-" if value is None else str(value) for value in told),
        marks if entry.fault is None else "not whole, see below",
    )


def draw_verdict(verdict: "Verdict", seconds: float) -> str:
    """One line for a sound checkpoint, one for each fault of a damaged one."""
    if not verdict.is_sound:
        lines = "".join(f"  {fault}\n" for fault in verdict.faults)
        return f"{verdict.folder.name}: damaged\n{lines}"
    rate = size(verdict.bytes / max(seconds, 1e-9))
    return (
        f"{verdict.folder.name}: sound: {verdict.files} files, {size(verdict.bytes)} in "
        f"{seconds:.2f} s ({rate}/s); {verdict.tensors} tensors, without gap or overlap\n"
    )


def draw_difference(first: "Reader", second: "Reader", difference: "Difference", limit: int) -> str:
    """What differs, `limit` lines of each kind."""
    lines = [f"first:  {_about(first)}", f"second: {_about(second)}"]
    counters = [f"  {name}: {one!r}, {other!r}" for name, one, other in difference.counters]
    shapes = [f"  {key}: {list(one)}, {list(other)}" for key, one, other in difference.shapes]
    values = [
        f"  {value.key}: {value.largest:.3g} apart, {value.relative:.3g} of the largest value"
        for value in difference.values
    ]
    kinds: Sequence[tuple[str, list[str]]] = (
        ("counters that differ", counters),
        ("tensors of the first only", [f"  {key}" for key in difference.only_first]),
        ("tensors of the second only", [f"  {key}" for key in difference.only_second]),
        ("tensors of other shapes", shapes),
        ("tensors of other values, worst first", values),
    )
    for title, found in kinds:
        if found:
            lines += [f"{title} ({len(found)}):", *found[:limit]]
        if len(found) > limit:
            lines.append(f"  and {len(found) - limit} more; --lines shows them")
    lines.append(f"{difference.same} tensors are the same")
    return "".join(f"{line}\n" for line in lines)


def _about(reader: "Reader") -> str:
    zero = reader.state.get("zero")
    stage = "" if zero is None else f", ZeRO {zero}"
    count = reader.commit["world_size"]
    return f"{reader.folder}, {count} process{'es' if count != 1 else ''}{stage}"


def draw_decisions(decisions: "list[Decision]", dry_run: bool) -> str:
    """What goes, what stays and why, and how much is won."""
    rows = [(item.folder.name, size(item.bytes), item.why) for item in decisions]
    going = [item for item in decisions if item.goes]
    won = size(sum(item.bytes for item in going))
    told = "would go; --dry-run deletes nothing" if dry_run else "go"
    return (table(rows) if rows else "") + f"{len(going)} of {len(rows)} folders, {won}, {told}\n"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        + "\n"
        for row in rows
    )


def size(count: float) -> str:
    """Bytes for people, in powers of 1000."""
    return _scaled(count, (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)), "B")


def duration(seconds: float) -> str:
    """A length of time for people, in its largest unit."""
    return _scaled(seconds, (("d", 86400), ("h", 3600), ("min", 60)), "s")


def _scaled(value: float, units: Iterable[tuple[str, Any]], smallest: str) -> str:
    for unit, factor in units:
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value:.0f} {smallest}"
