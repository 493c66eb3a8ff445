"""A folder that is written whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_scale.checkpoint.layout import sync
from ssl_scale.errors import SslScaleError

CONFIG_NAME = "config.json"


@contextmanager
def whole_folder(folder: Path, marker: str, what: str, force: bool = False) -> Iterator[Path]:
    """Give a draft to write into, which takes the folder's name when all went well.

    Args:
        folder: is made.
        marker: text that ``config.json`` of a folder of this kind holds; no other is replaced.
        what: how messages call the kind.
        force: replace one of the kind that is there.

    Raises:
        SslScaleError: something is there that must not be replaced.
    """
    folder = Path(folder)
    _check_free(folder, marker, what, force)
    draft = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        mode = (draft / CONFIG_NAME).stat().st_mode
        for path in draft.rglob("*"):
            if path.is_file():
                path.chmod(mode)  # safetensors makes its files readable to nobody else
            sync(path)
        _put(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check_free(folder: Path, marker: str, what: str, force: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    config = folder / CONFIG_NAME
    if not (config.is_file() and marker in config.read_text(errors="replace")):
        raise SslScaleError(
            f"{folder} must be a new folder, but holds something that is no {what}; name another"
        )
    if not force:
        raise SslScaleError(
            f"{folder} must be a new folder, but holds an {what}; name another, or "
            "pass --force to replace it"
        )


def _put(draft: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
