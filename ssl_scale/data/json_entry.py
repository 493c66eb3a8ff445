"""One entry of a JSON member, as the bytes that a member of its own would hold."""

import json
from typing import Any, NoReturn

from ssl_scale.data.undecodable import UndecodableError


def json_entry(member: bytes, extension: str, entry: str | None) -> bytes | None:
    """Pick an entry of a member that is JSON by its extension; another is taken as it is.

    Args:
        member: its bytes.
        extension: of the member.
        entry: names and places from the outside in, between dots: ``captions.0``. None takes also
            JSON as it is.

    Returns:
        A text as UTF-8, anything else as JSON; None where the entry is null: the sample lacks it.

    Raises:
        UndecodableError: the member is no JSON, or has no such entry.
    """
    if entry is None or extension.rpartition(".")[-1] != "json":
        return member
    try:
        value = json.loads(member, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UndecodableError(f"must be JSON, but is not ({error})") from error
    for step in entry.split("."):
        value = _inside(value, step, entry)
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    # Half a surrogate pair can be written in JSON, but is no character.
    return text.encode(errors="replace")


def _inside(value: Any, step: str, entry: str) -> Any:
    if isinstance(value, dict):
        if step in value:
            return value[step]
        has = f"only {', '.join(value)[:200]}" if value else "nothing"
    elif isinstance(value, list):
        if step.isascii() and step.isdigit() and int(step) < len(value):
            return value[int(step)]
        has = f"a list of {len(value)}"
    else:
        has = f"{json.dumps(value)[:40]}"
    raise UndecodableError(f"must have the entry {entry!r}, but at {step!r} there is {has}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
