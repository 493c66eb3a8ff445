"""The bytes of a lease: who holds it and how often it was renewed; made exclusively, read whole."""

import dataclasses
import errno
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import xxhash

from ssl_scale.checkpoint.layout import sync, write_durably
from ssl_scale.train.lease.holder import Holder

LARGEST = 1 << 14
# What file systems without hard links answer.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True)
class Page:
    """What stands in a lease's file.

    Args:
        raw: its bytes.
        token: the holder's; where there is no page, as in a file whose maker was killed, a checksum
            of the file's name and bytes takes its place.
        holder: who wrote it; None if that cannot be read.
        beats: how often it was renewed.
    """

    raw: bytes
    token: str
    holder: Holder | None = None
    beats: int = 0

    @classmethod
    def of(cls, holder: Holder, beats: int) -> "Page":
        """The page of a holder."""
        raw = json.dumps(dataclasses.asdict(holder) | {"beats": beats}, indent=1).encode() + b"\n"
        return cls(raw, holder.token, holder, beats)

    @classmethod
    def parse(cls, name: str, raw: bytes) -> "Page":
        """The page that the bytes of a file are."""
        try:
            content = json.loads(raw)
            beats = content.pop("beats")
            holder = Holder(**content)
            if _is_sound(holder, beats):
                return cls(raw, holder.token, holder, beats)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass
        return cls(raw, f"unknown-{xxhash.xxh3_128(name.encode() + raw).hexdigest()}")

    def draft(self, folder: Path) -> Path:
        """Where this holder writes what a file of the folder is to become."""
        return folder / f".lease-{self.token}"

    def __str__(self) -> str:
        return "an unknown process" if self.holder is None else str(self.holder)


def _is_sound(holder: Holder, beats: object) -> bool:
    fields = dataclasses.fields(Holder)
    return (
        type(beats) is int
        and all(type(getattr(holder, field.name)) is field.type for field in fields)
        and re.fullmatch("[0-9a-f]{32}", holder.token) is not None
        and 0 < holder.beat_s < 3600
        and 0 < holder.pid < 1 << 31
    )


def read(path: Path) -> Page | None:
    """The page in a file; None if there is no file."""
    try:
        with path.open("rb") as file:
            return Page.parse(path.name, file.read(LARGEST))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ESTALE:  # replaced between NFS's opening and reading
            raise
    return read(path)


def create(path: Path, page: Page) -> bool:
    """Make a file that must not be there yet, at once with its whole content.

    Returns:
        Whether it was made: of several who try at the same time, one makes it.
    """
    draft = page.draft(path.parent)
    write_durably(draft, page.raw)
    try:
        os.link(draft, path)
    except FileExistsError:
        # NFS sends a request again whose answer was lost: then the link is ours all the same.
        return draft.stat().st_nlink > 1
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create_empty_first(path, page.raw)
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)
    return True


def _create_empty_first(path: Path, data: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)
    return True
