"""Files at an address: ``s3://``, ``gs://``, ``http(s)://``, ``hf://``, whatever fsspec opens.

Credentials come from the environment or from the back end's own configuration (``AWS_PROFILE``,
``HF_TOKEN``, ``~/.config/fsspec``): never from an address, which is written into recipes and logs.

fsspec and its back ends are imported where a remote file is read, and nowhere else. No file system
is kept: they do not survive a fork, and fsspec keeps them itself, a process each.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import xxhash

from ssl_scale.data.retrying import ChangedError, Patience, supervised
from ssl_scale.errors import DataError
from ssl_scale.redact import redact_text

# One slash is what a `Path` leaves of the two.
_ADDRESS = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]+):/")
_CHUNK = 1 << 22


@dataclass(frozen=True)
class RemoteFile:
    """A file of a remote data set, and what it must be.

    Args:
        folder: address of its folder, as `folder_address` returns it.
        name: its file name.
        bytes: its size.
        xxh3: the 128-bit XXH3 of its first bytes, in hexadecimal.
        hashed: how many bytes that speaks of; None for all.
    """

    folder: str
    name: str
    bytes: int
    xxh3: str
    hashed: int | None = None

    @property
    def address(self) -> str:
        """Where it is, for messages."""
        return f"{self.folder}/{self.name}"


def is_remote(name: str) -> bool:
    """Whether a data set's name is an address rather than a local folder."""
    return name.startswith("pipe:") or _ADDRESS.match(name) is not None


def folder_address(name: str) -> str:
    """A data set's address, without a slash at its end.

    Raises:
        DataError: it is not the address of a folder, or holds what must not be written down.
    """
    shown = redact_text(name)
    if name.startswith("pipe:"):
        raise DataError(
            f"{name}: a data set must be at an address, but this is a command for a shell, which "
            "is never run; give the address that it reads from"
        )
    protocol, slashes, rest = name.partition("://")
    if not slashes or not rest.strip("/"):
        raise DataError(
            f"{shown}: an address must be PROTOCOL://PLACE, but is not; give it as text, "
            "for a `Path` takes away a slash"
        )
    if "@" in rest.partition("/")[0]:
        raise DataError(
            f"{shown}: an address must not hold a user or a password, for it is written to logs "
            "and checkpoints; give them by the environment or the back end's configuration file"
        )
    if "?" in rest or "#" in rest:
        raise DataError(
            f"{re.split('[?#]', shown)[0]}: an address must be that of a folder, but has a query "
            "or a fragment; leave it out, and give credentials by the environment"
        )
    if "::" in name:
        raise DataError(f"{shown}: one address must be given, but this is a chain; give the last")
    if "{" in rest or rest.endswith(".tar"):
        raise DataError(
            f"{shown}: a data set must be a folder of indexed shards, but this names archives; "
            "give the address of their folder"
        )
    return f"{protocol.lower()}://{rest.rstrip('/')}"


def download(file: RemoteFile, target: Path, patience: Patience) -> None:
    """Bring a file here, whole and as the index speaks of it; one attempt.

    Raises:
        ChangedError: it has another size or checksum.
        Exception: whatever the back end raises.
    """
    bring(file.folder, file.name, target, patience)
    size = target.stat().st_size
    if size != file.bytes:
        raise ChangedError(f"{size} bytes came, but the index was made for {file.bytes}")
    digest, left = xxhash.xxh3_128(), file.bytes if file.hashed is None else file.hashed
    with target.open("rb") as content:
        while left and (chunk := content.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    if digest.hexdigest() != file.xxh3:
        raise ChangedError(
            f"what came has xxh3 {digest.hexdigest()}, but the index was made for {file.xxh3}"
        )


def bring(folder: str, name: str, target: Path, patience: Patience) -> None:
    """Bring a file here, whatever it holds; one attempt."""
    _import_back_end(folder)

    def copy() -> None:
        files, root = _open_folder(folder, patience.stalled_s)
        # A name is only ever a name below the folder, whatever it looks like.
        safe = quote(name) if folder.startswith(("http:", "https:")) else name
        files.get_file(f"{root.rstrip('/')}/{safe}", str(target))

    supervised(copy, target, patience.stalled_s)


def _import_back_end(folder: str) -> None:
    """In the thread that asks: slow imports are no stall, and no fork meets them half done."""
    import fsspec

    fsspec.get_filesystem_class(folder.partition("://")[0])


def _open_folder(folder: str, stalled_s: float) -> tuple[Any, str]:
    """The file system of an address, and the folder's name in it."""
    import fsspec
    from fsspec.config import conf

    options: dict[str, Any] = {}
    if folder.startswith(("http:", "https:")):
        import aiohttp

        # aiohttp ends every answer after five minutes, whatever has come.
        timeout = aiohttp.ClientTimeout(total=None, connect=stalled_s, sock_read=stalled_s)
        configured = {**conf.get("http", {}), **conf.get("https", {})}.get("client_kwargs", {})
        options["client_kwargs"] = {"timeout": timeout, "trust_env": True, **configured}
    files, root = fsspec.url_to_fs(folder, **options)
    return files, str(root)
