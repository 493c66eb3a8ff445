"""Packing: one task turns a list of raw samples into a shard, its index and its manifest rows.

The bytes of a shard depend on the samples' names and contents alone: members in order, no times, no
owners. Original bytes are kept.
"""

import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from ssl_scale.data.index import describe_shard
from ssl_scale.data.member_checks import add_checks
from ssl_scale.data.samples import collect_samples
from ssl_scale.data.tar import Member
from ssl_scale.errors import DataError

from .dataset import describe_samples
from .examine import Check, examine
from .manifest import ManifestRow
from .raw import RawMember, RawSample, Unfit
from .work import Produced

# Packing's output for equal input; raised when shards come out otherwise.
VERSION = 3


@dataclass(frozen=True)
class Packing:
    """The input of one shard.

    Args:
        shard: its name without ``.tar``.
        root: the folder that members' paths are relative to.
        samples: what goes into it, in order.
        check: how closely they are looked at.
        skip_bad: set bad samples aside rather than stop.
    """

    shard: str
    root: str
    samples: tuple[RawSample, ...]
    check: Check
    skip_bad: bool


def pack_shard(packing: Packing, folder: Path) -> Produced:
    """Write a shard with index and manifest part; see `Stage`.

    Raises:
        DataError: a sample is bad, and bad samples are not skipped.
    """
    errors: list[dict[str, str]] = []
    rows: list[ManifestRow] = []
    members: list[Member] = []
    path = folder / f"{packing.shard}.tar"
    with open(path, "wb") as handle, _open_tar(handle) as tar:
        for sample in packing.samples:
            try:
                contents = {
                    member.extension: _read(Path(packing.root), member) for member in sample.members
                }
                facts = examine(contents, packing.check)
            except Unfit as unfit:
                if not packing.skip_bad:
                    raise DataError(f"{Path(packing.root, sample.where)}: {unfit}") from None
                row = {"where": sample.where, "reason": str(unfit), "key": sample.key}
                errors.append(row)
                continue
            members.extend(_append(tar, sample.key, contents))
            rows.append(ManifestRow.of(sample.key, path.name, contents, facts))
    if not rows:
        path.unlink()
        return Produced({"samples": 0, "rejected": len(errors)}, errors)
    index = add_checks(path, collect_samples(path, members))
    shard = describe_shard(path, index)
    counts = describe_samples(folder, packing.shard, index, rows)
    return Produced({**counts, "rejected": len(errors)}, errors, {"shard": asdict(shard)})


def _open_tar(handle: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=handle, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8")


def _append(tar: tarfile.TarFile, key: str, contents: dict[str, bytes]) -> Iterator[Member]:
    for extension, content in contents.items():
        entry = tarfile.TarInfo(f"{key}.{extension}")
        entry.size = len(content)
        tar.addfile(entry, BytesIO(content))
        padded = -(-entry.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        yield Member(entry.name, tar.offset - padded, entry.size)


def _read(root: Path, member: RawMember) -> bytes:
    """The member's bytes.

    Raises:
        Unfit: the file is not what it was when the folder was listed.
    """
    if member.text is not None:
        return member.text.encode("utf-8")
    path = root / str(member.path)
    try:
        # Not blocking: a pipe that took the file's place would hang the worker.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise Unfit(f"file must be readable, but is not: {error.strerror}") from None
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode) or not path.resolve().is_relative_to(root):
            raise Unfit("must stay a regular file of the input folder, but was replaced")
        content = file.read()
    if len(content) != member.size:
        raise Unfit(
            f"file must keep its {member.size} bytes while it is packed, but has {len(content)} now"
        )
    return content
