"""The last lines of files that may be gigabytes long, or missing."""

import os
from pathlib import Path


def tail(path: Path, most_bytes: int) -> list[str]:
    """The lines in a file's last bytes; the first may be cut; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most_bytes))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
