"""A folder of files as raw data: files that share a stem are one sample (a.png, a.txt, a.cls)."""

import os
from itertools import groupby
from pathlib import Path

from .raw import Listing, RawMember, RawSample, Rejected, Unfit, find_file, require_name, split_name


def list_folder(root: Path) -> Listing:
    """All samples below a folder, sorted by key; hidden files and folders are ignored.

    Args:
        root: resolved.
    """
    listing = Listing()
    found: list[tuple[str, RawMember]] = []
    for folder, subfolders, files in os.walk(root, onerror=_raise):
        visible = sorted(name for name in subfolders if not name.startswith("."))
        subfolders[:] = [name for name in visible if not os.path.islink(os.path.join(folder, name))]
        base = Path(folder).relative_to(root).as_posix()
        prefix = "" if base == "." else f"{base}/"
        for name in visible:
            if name not in subfolders:
                reason = "must be a folder, but is a link to one"
                listing.rejected.append(Rejected(prefix + name, reason))
        for name in sorted(files):
            if name.startswith("."):
                listing.num_ignored += 1
                continue
            try:
                found.append(_as_member(root, prefix + name))
            except Unfit as unfit:
                listing.rejected.append(Rejected(prefix + name, str(unfit)))
    found.sort(key=lambda pair: (pair[0], pair[1].extension, pair[1].path))
    for key, pairs in groupby(found, key=lambda pair: pair[0]):
        _add_sample(listing, key, [member for _, member in pairs])
    return listing


def _raise(error: OSError) -> None:
    raise error


def _as_member(root: Path, name: str) -> tuple[str, RawMember]:
    require_name(name)
    key, extension = split_name(name)
    size, changed_ns = find_file(root, name)
    return key, RawMember(extension, size, path=name, changed_ns=changed_ns)


def _add_sample(listing: Listing, key: str, members: list[RawMember]) -> None:
    kept: dict[str, RawMember] = {}
    for member in members:
        twin = kept.setdefault(member.extension, member)
        if twin is not member:
            reason = f"extension must be new to its sample, but {twin.path} has it too"
            listing.rejected.append(Rejected(str(member.path), reason, key))
    listing.samples.append(RawSample(key, tuple(kept.values())))
