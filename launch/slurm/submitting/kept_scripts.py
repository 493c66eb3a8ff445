"""The scripts of a run's submissions, one beside the other in its folder."""

import contextlib
import re
from pathlib import Path

from ssl_scale.errors import SslScaleError

_SCRIPT = re.compile(r"job-([0-9]+)\.sh")


def keep_script(folder: Path, script: str) -> Path:
    """Write a script into a folder, beside those of earlier submissions; returns its file.

    Raises:
        SslScaleError: the folder cannot be written.
    """
    try:
        (folder / "launch").mkdir(parents=True, exist_ok=True)
        (folder / "logs").mkdir(exist_ok=True)
        path = _new_file(folder)
        try:
            path.write_text(script)
        except BaseException:
            path.unlink()
            raise
    except OSError as error:
        raise SslScaleError(
            f"{folder}: must be a folder that can be written, but is not ({error}); mend it, "
            "or choose another with --run-folder"
        ) from error
    return path


def _new_file(folder: Path) -> Path:
    """An empty file for a script, which no other submission at this moment has."""
    while True:
        with contextlib.suppress(FileExistsError):
            path = next_script(folder)
            path.touch(exist_ok=False)
            return path


def next_script(folder: Path) -> Path:
    """Where the script of the next submission will be kept."""
    names = (path.name for path in (folder / "launch").glob("job-*.sh"))
    numbers = [int(match[1]) for name in names if (match := _SCRIPT.fullmatch(name))]
    return folder / "launch" / f"job-{max(numbers, default=0) + 1:03d}.sh"
