"""What a run adds to its metrics.jsonl, line by line, as it trains."""

import json
from pathlib import Path
from typing import Any

NAME = "metrics.jsonl"


class GrowingMetrics:
    """Reads each line once.

    Args:
        run_folder: of the run; its file may be still to come.
    """

    def __init__(self, run_folder: Path) -> None:
        self._path = run_folder / NAME
        self._read = 0

    def new_lines(self) -> list[dict[str, Any]]:
        """The whole lines since the last call; those that a kill tore are passed over."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return [line for raw in whole.splitlines() if (line := _parsed(raw)) is not None]


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
