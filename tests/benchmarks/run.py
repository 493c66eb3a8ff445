"""Runs benchmarks: ``make bench`` for all areas, ``make bench AREA=startup`` for one.

An area is a module of this folder with a function ``rows() -> list[Row]``. Its rows are printed as
one table and written to ``results/<area>.json`` together with the machine that they hold for.
"""

import argparse
import importlib
import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

FOLDER = Path(__file__).parent
COLUMNS = ("measure", "value", "unit", "against", "ratio", "goal", "met")


class Row(TypedDict):
    """One measured figure.

    Attributes:
        measure: what was measured.
        value: the figure; None if it could not be measured, and `unit` says why.
        unit: its unit.
        against: what it is compared with, measured in the same run; None if with nothing.
        ratio: value over that.
        goal: the goal in words, such as "at most 1 s"; None if there is none.
        met: whether the goal is met.
    """

    measure: str
    value: float | None
    unit: str
    against: str | None
    ratio: float | None
    goal: str | None
    met: bool | None


def areas() -> list[str]:
    """All areas that can be measured; what they share begins with an underscore."""
    stems = {path.stem for path in FOLDER.glob("*.py")} - {"run"}
    return sorted(stem for stem in stems if not stem.startswith(("test_", "_")))


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    models = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [line for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        # Above the number of cores, seconds tell little; ratios of turns still do.
        "load_at_the_end": round(os.getloadavg()[0], 1),
        "memory_gib": round(int(memory[0].split()[1]) / 2**20, 1) if memory else None,
        "gpus": _gpus(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def table(rows: list[Row]) -> str:
    """The rows, in columns."""
    cells = [COLUMNS, *[tuple(_text(row[column]) for column in COLUMNS) for row in rows]]  # type: ignore[literal-required]
    widths = [max(len(line[place]) for line in cells) for place in range(len(COLUMNS))]
    lines = [
        "  ".join(
            text.rjust(width) if column in ("value", "ratio") else text.ljust(width)
            for column, text, width in zip(COLUMNS, line, widths, strict=True)
        ).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def measure(area: str, results: Path) -> list[Row]:
    """Measure an area and write its results."""
    rows: list[Row] = importlib.import_module(f"{__package__}.{area}").rows()
    for row in rows:
        if set(row) != set(COLUMNS):
            raise ValueError(f"a row of {area} must have {COLUMNS}, but has {tuple(row)}")
    content = {
        "area": area,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rows": rows,
    }
    results.mkdir(exist_ok=True)
    (results / f"{area}.json").write_text(json.dumps(content, indent=2) + "\n")
    return rows


def main(arguments: list[str]) -> int:
    """Measure the areas asked for, all without one."""
    parser = argparse.ArgumentParser(description="Run benchmarks.")
    parser.add_argument("areas", nargs="*", metavar="AREA", help=", ".join(areas()))
    asked = parser.parse_args(arguments).areas or areas()
    unknown = [area for area in asked if area not in areas()]
    if unknown:
        parser.error(f"AREA must be one of {', '.join(areas())}, but is {', '.join(unknown)}")
    rows: list[Row] = []
    for area in asked:
        print(f"measuring {area}", file=sys.stderr, flush=True)
        rows += measure(area, FOLDER / "results")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
