"""The samples of one shard: WebDataset's rule for what belongs together.

The key is a member's path up to the first dot of its file name, the rest is the extension in lower
case; members of one sample stand side by side. Files without an extension and ``__meta__`` ones are
left out.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_scale.data.tar import Member
from ssl_scale.errors import DataError

_LARGEST = 2**31 - 1
_SAMPLE = re.compile(r"((?:.*/|)[^.]+)[.]([^/]+)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The samples of one shard.

    Args:
        keys: name of each sample, in the shard's order.
        offsets: extension -> first byte of each sample's member; integers of any width.
        lengths: extension -> its bytes; -1 where the sample lacks it.
        checks: extension -> its checksum, 16 bits (see `member_checks`); empty until it is known.
    """

    keys: Sequence[str]
    offsets: Mapping[str, NDArray[np.signedinteger]]
    lengths: Mapping[str, NDArray[np.signedinteger]]
    checks: Mapping[str, NDArray[np.uint16]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def counts(self) -> dict[str, int]:
        """How many samples have each extension."""
        return {name: int((lengths >= 0).sum()) for name, lengths in self.lengths.items()}

    def select(self, kept: NDArray[np.bool_]) -> "ShardIndex":
        """The samples where `kept` is true, and the extensions that any of them has."""
        keys = [key for key, keep in zip(self.keys, kept, strict=True) if keep]
        used = [name for name, lengths in self.lengths.items() if (lengths[kept] >= 0).any()]
        return ShardIndex(
            keys,
            {name: self.offsets[name][kept] for name in used},
            {name: self.lengths[name][kept] for name in used},
            {name: self.checks[name][kept] for name in used if name in self.checks},
        )


def collect_samples(
    path: Path,
    members: Iterable[Member],
    set_aside: Callable[[str, str], None] | None = None,
) -> ShardIndex:
    """Group members into samples.

    Args:
        path: the shard, for messages.
        members: in their order.
        set_aside: told key and reason of each member that fits into no sample, which is then left
            out; None means to stop at the first.

    Raises:
        DataError: there are no samples, or members that do not fit.
    """
    rows: dict[str, int] = {}
    found: dict[str, list[tuple[int, int, int]]] = {}
    for member, key, extension in _name_parts(members):
        reason = _misfit(member, key, extension, rows, found)
        if reason is None:
            row = rows.setdefault(key, len(rows))
            found.setdefault(extension, []).append((row, member.offset, member.length))
        elif set_aside is None:
            raise DataError(f"{path}: {reason}")
        else:
            set_aside(key, reason)
    if not rows:
        raise DataError(
            f"{path}: a shard must hold samples (members called KEY.EXTENSION), but it holds none; "
            "remove the file"
        )
    columns = {name: _columns(found[name], len(rows)) for name in sorted(found)}
    return ShardIndex(
        list(rows),
        {name: offsets for name, (offsets, _) in columns.items()},
        {name: lengths for name, (_, lengths) in columns.items()},
    )


def _name_parts(members: Iterable[Member]) -> Iterator[tuple[Member, str, str]]:
    for member in members:
        match = _SAMPLE.fullmatch(member.name)
        if match and not _META.match(member.name):
            yield member, match[1], match[2].lower()


def _misfit(
    member: Member,
    key: str,
    extension: str,
    rows: Mapping[str, int],
    found: Mapping[str, Sequence[tuple[int, int, int]]],
) -> str | None:
    """Why a member cannot belong to its sample, if so."""
    row = rows.get(key, len(rows))
    if member.link is not None:
        return (
            f"a member must hold its own bytes, but {member.name!r} is a link to {member.link!r}; "
            "pack with `tar --hard-dereference --dereference`"
        )
    if row < len(rows) - 1:
        return (
            "a key must belong to one sample, whose members stand side by side, but "
            f"{member.name!r} comes after another sample began; sort the archive by name, or give "
            "every sample a key of its own"
        )
    places = found.get(extension)
    if places and places[-1][0] == row:
        return (
            f"a sample must have one member of an extension, but {key!r} has two '.{extension}'; "
            "give every sample a key of its own"
        )
    if member.length > _LARGEST:
        return (
            f"a member must be at most {_LARGEST} bytes, but {member.name!r} has "
            f"{member.length}; split it"
        )
    return None


def _columns(
    places: list[tuple[int, int, int]], samples: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    table = np.array(places, dtype=np.int64)
    offsets, lengths = np.zeros(samples, np.int64), np.full(samples, -1, np.int32)
    offsets[table[:, 0]], lengths[table[:, 0]] = table[:, 1], table[:, 2]
    return offsets, lengths
