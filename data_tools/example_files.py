"""Writing example folders so that a second run changes nothing."""

from collections.abc import Mapping
from pathlib import Path

from ssl_scale.errors import DataError


def write_files(folder: Path, folders: Mapping[str, Mapping[str, bytes]]) -> None:
    """Write files by subfolder and name; equal ones keep their time of change.

    Raises:
        DataError: a subfolder holds a file that is not one of these.
    """
    for subfolder, files in folders.items():
        place = folder / subfolder
        place.mkdir(parents=True, exist_ok=True)
        strangers = {path.name for path in place.iterdir() if path.is_file()} - set(files)
        if strangers:
            raise DataError(
                f"{place} must be new or hold the same example, but holds {min(strangers)!r}; "
                "name another folder"
            )
        for name, content in files.items():
            path = place / name
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)
