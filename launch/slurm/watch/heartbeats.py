"""When a run's last step ended, and whom its ranks wait for, as their heartbeats tell."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = "heartbeats"
# A rank beats every 10 s at most.
STALE_S = 60.0


@dataclass(frozen=True)
class Heartbeat:
    """A rank's last sign of life.

    Args:
        rank: whose.
        host: where it runs.
        heard: when, in seconds since 1970.
        stepped: when its last step had ended.
        stands: the place in its code where its main thread stood.
        collective: the collective operation that it was in; None if it was in none.
    """

    rank: int
    host: str
    heard: float
    stepped: float
    stands: str
    collective: str | None


def read_heartbeats(run_folder: Path, since: float) -> list[Heartbeat]:
    """The last heartbeat of each rank that has given one since a time, by rank."""
    found = []
    for path in (run_folder / FOLDER).glob("rank-*.json"):
        try:
            heard = path.stat().st_mtime
            content: dict[str, Any] = json.loads(path.read_bytes())
            beat = Heartbeat(
                int(content["rank"]),
                str(content["host"]),
                heard,
                heard - float(content["seconds_since_step"]),
                str(content["stands"]),
                content["collective"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if heard >= since:
            found.append(beat)
    return sorted(found, key=lambda beat: beat.rank)


def waited_for(beats: list[Heartbeat], now: float) -> str:
    """Whom a run without steps waits for; empty if that cannot be told."""
    if silent := [beat for beat in beats if now - beat.heard > STALE_S]:
        return f"no sign of life from {_named(silent)}"
    busy = [beat for beat in beats if beat.collective is None]
    if busy and len(busy) < len(beats):
        return f"the others wait for {_named(busy)}, in {busy[0].stands}"
    return ""


def _named(beats: list[Heartbeat]) -> str:
    more = f" and {len(beats) - 3} more" if len(beats) > 3 else ""
    return ", ".join(f"rank {beat.rank} on {beat.host}" for beat in beats[:3]) + more
