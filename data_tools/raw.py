"""Raw samples before they are packed, and the names they may have.

Nothing is read here but names and sizes. A name never leaves its folder: no absolute path, no
``..``, no link that points outside.
"""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .work import hash_of

MAX_MEMBER_BYTES = 2**31 - 1  # lengths in an index are 32-bit
MAX_NAME_BYTES = 4096
_UNFIT = re.compile(r"[\x00-\x1f\x7f\\]")
_META = re.compile(r"__[^/]*__($|/)")
_EXTENSION = re.compile(r"[a-z0-9_+\-]+(\.[a-z0-9_+\-]+)*")


@dataclass(frozen=True, slots=True)
class RawMember:
    """One part of a sample: a file below the root, or a text that stands in a table.

    Args:
        extension: lower case, without the first dot; may hold further dots.
        size: bytes.
        path: the file, relative to the root.
        text: what the table holds.
        changed_ns: when the file was changed last.
    """

    extension: str
    size: int
    path: str | None = None
    text: str | None = None
    changed_ns: int = 0


@dataclass(frozen=True, slots=True)
class RawSample:
    """A sample's key and members, sorted by extension."""

    key: str
    members: tuple[RawMember, ...]

    @property
    def where(self) -> str:
        """What to call it in a message: its first file, or else its key."""
        return next((member.path for member in self.members if member.path), self.key)

    @property
    def tar_bytes(self) -> int:
        """What it takes up in a tar: a header and whole blocks a member."""
        return sum(512 + -(-member.size // 512) * 512 for member in self.members)

    @property
    def identity(self) -> list[Any]:
        """What tells whether the sample is still the same, without reading its files."""
        return [self.key, [list(asdict(member).values()) for member in self.members]]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something that was set aside.

    Args:
        where: the file or the row.
        reason: what it must be and is not.
        key: the sample's key, if it has one.
    """

    where: str
    reason: str
    key: str | None = None


@dataclass
class Listing:
    """What was found.

    Args:
        samples: sorted by key in a folder, by row in a table.
        rejected: what cannot become part of a sample.
        num_ignored: hidden files.
    """

    samples: list[RawSample] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    num_ignored: int = 0


class Unfit(Exception):
    """A file, a row or a sample cannot be used; the message is the reason."""


def require_name(name: str) -> None:
    """Refuse a relative path that could leave its folder or break a line or a tar.

    Raises:
        Unfit: with the reason.
    """
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise Unfit("name must be UTF-8, but is not") from None
    if size > MAX_NAME_BYTES:
        raise Unfit(f"name must be at most {MAX_NAME_BYTES} bytes long, but is {size}")
    if _UNFIT.search(name):
        raise Unfit("name must have no backslash, line break or control character, but has one")
    parts = name.split("/")
    if name.startswith("/"):
        raise Unfit("path must be relative, but is absolute")
    if ".." in parts:
        raise Unfit("path must stay in its folder, but has '..'")
    if "" in parts or "." in parts:
        raise Unfit("path must be plain, but has an empty or '.' part")


def require_key(key: str) -> None:
    """Refuse a key that a WebDataset reader would split otherwise; see `require_name`."""
    require_name(key)
    if "." in key.rpartition("/")[2]:
        raise Unfit("key must have no dot after its last '/' (the extension starts there)")
    if _META.match(key):
        raise Unfit("key must not look like __this__, which WebDataset keeps for itself, but does")


def split_name(name: str) -> tuple[str, str]:
    """Key and extension as WebDataset has them: parted at the first dot of the last part.

    Raises:
        Unfit: there is no extension, or it has characters that a column name cannot have.
    """
    folder, slash, last = name.rpartition("/")
    stem, dot, extension = last.partition(".")
    if not dot or not extension:
        raise Unfit("file must have an extension, but has none")
    require_key(folder + slash + stem)
    return folder + slash + stem, require_extension(extension)


def require_extension(extension: str) -> str:
    """The extension in lower case.

    Raises:
        Unfit: with the reason.
    """
    lower = extension.lower()
    if not _EXTENSION.fullmatch(lower):
        raise Unfit(f"extension must be letters, digits, '_', '-', '+', but is {extension!r}")
    return lower


def find_file(root: Path, name: str) -> tuple[int, int]:
    """Size and time of change of a regular file inside the root.

    Args:
        root: resolved.
        name: path relative to it, already through `require_name`.

    Raises:
        Unfit: it is missing, no regular file, a link that leaves the root, or too large.
    """
    path = root / name
    try:
        if not path.resolve(strict=True).is_relative_to(root):
            raise Unfit("file must lie in the input folder, but is a link that leads out of it")
        found = os.stat(path)
    except FileNotFoundError:
        raise Unfit("file must exist, but does not") from None
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise Unfit(f"file must be readable, but is not: {error}") from None
    if not stat.S_ISREG(found.st_mode):
        raise Unfit("must be a regular file, but is a folder, pipe, socket or device")
    if found.st_size > MAX_MEMBER_BYTES:
        raise Unfit(f"file must be at most {MAX_MEMBER_BYTES} bytes, but has {found.st_size}")
    return found.st_size, found.st_mtime_ns


def lacks(sample: RawSample, required: Iterable[str]) -> str | None:
    """The reason, if a sample lacks an extension it must have."""
    has = {member.extension for member in sample.members}
    missing = [extension for extension in required if extension not in has]
    return f"sample must have .{', .'.join(missing)}, but has {sorted(has)}" if missing else None


def hash_samples(samples: Iterable[RawSample]) -> str:
    """Identifies a list of samples by names, sizes and times of change."""
    return hash_of([sample.identity for sample in samples])
