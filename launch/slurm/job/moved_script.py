"""A batch script made over for another folder: all else that it says stays as it is."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .script import require_nameable

ASSIGNED = "run_folder="
OPTION = "--run-folder="
BIND = "--bind="
MOUNTS = "--container-mounts="


def run_folder_of_script(script: str) -> Path:
    """The folder of the run that a script trains.

    Raises:
        SslScaleError: the script was not made by ssl-launch submit.
    """
    lines = script.split("\n")
    places = [place for place, line in enumerate(lines) if line.startswith(ASSIGNED)]
    line = lines[_only(places, ASSIGNED)]
    return Path(shlex.split(line)[0].removeprefix(ASSIGNED))


def moved(script: str, folder: Path) -> str:
    """The script, for a run in another folder.

    Args:
        script: as `render` made it.
        folder: an absolute path.

    Raises:
        SslScaleError: the folder's name cannot be in a script, or the script was changed by hand
            where it names its folder.
    """
    require_nameable(folder)
    old, new = str(run_folder_of_script(script)), str(folder)
    lines = script.split("\n")
    _replace(lines, f"{ASSIGNED}{shlex.quote(old)}", f"{ASSIGNED}{shlex.quote(new)}")
    _replace(lines, _word(f"{OPTION}{old}"), _word(f"{OPTION}{new}"))
    # Only a run in a container has one of these.
    for before, after in list(_mounts(lines, old, new)):
        _replace(lines, before, after)
    return "\n".join(lines)


def _mounts(lines: Sequence[str], old: str, new: str) -> Iterator[tuple[str, str]]:
    bind = _word(f"{BIND}{old}")
    if bind in lines:
        yield bind, _word(f"{BIND}{new}")
    own = f"{old}:{old}"
    for line in lines:
        try:
            words = shlex.split(line) if MOUNTS in line else []
        except ValueError:  # a part of a value of several lines
            continue
        if [line] == [_word(word) for word in words] and words[0].endswith(own):
            yield line, _word(f"{words[0].removesuffix(own)}{new}:{new}")


def _word(word: str) -> str:
    """As an array's word stands in the script."""
    return f"    {shlex.quote(word)}"


def _replace(lines: list[str], before: str, after: str) -> None:
    # A second place could be inside of a quoted value, where quotes of ours would end it.
    places = [place for place, line in enumerate(lines) if line == before]
    lines[_only(places, before.strip())] = after


def _only(places: Sequence[int], what: str) -> int:
    if len(places) != 1:
        raise SslScaleError(
            f"the run's script must have one line with {what!r}, but has {len(places)}; submit the "
            "recipe once more, so that the script is as ssl-launch made it"
        )
    return places[0]
