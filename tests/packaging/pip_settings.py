"""How this machine's pip finds packages, for a root that has no such settings."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# In the order in which one overrides the other.
SCOPES = ("global", "user", "site", ":env:")


def pip_settings() -> dict[str, str]:
    """All settings, as variables."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, dict[str, str]] = {scope: {} for scope in SCOPES}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        scope, _, key = name.partition(".")
        words = value.strip("'\"").replace("\\n", " ")
        found[scope][f"PIP_{key.upper().replace('-', '_')}"] = words
    return {key: value for scope in SCOPES for key, value in found[scope].items()}


def folders_of(settings: Mapping[str, str]) -> list[Path]:
    """Folders of this machine that the settings name."""
    folders = set()
    for word in " ".join(settings.values()).split():
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.is_dir():
            # The files of an index lie beside it.
            folders.add(path.parent if word.startswith("file://") else path)
    return sorted(folders)
