"""List the published systems that shipped recipes implement, with parts, proof and figures.

Everything is read from the recipes and from the results kept beside them. Rows are numbers of the
catalogue of systems. Figures are those of a recipe's form in small/, where it was run.
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_scale.recipe.systems import ListedSystem

EXAMPLES = """examples:
  ssl-scale systems
  ssl-scale systems --json | jq '.[] | select(.system.rows | index(31))'
  ssl-scale show vision/dinov2                the whole recipe of one
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="everything, for other programs")


def run(arguments: argparse.Namespace) -> int:
    """Print; returns the exit code."""
    from ssl_scale.recipe.systems import list_systems

    systems = list_systems()
    if arguments.json:
        sys.stdout.write(json.dumps([system.to_dict() for system in systems], indent=1) + "\n")
    else:
        sys.stdout.write(draw(systems))
    return 0


def draw(systems: "list[ListedSystem]") -> str:
    """A table of aligned columns."""
    head = ("recipe", "paper", "rows", "encoders", "objectives", "teacher", "measured", "proof")
    lines = [head, *(_cells(system) for system in systems)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    drawn = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "".join(f"{line}\n" for line in drawn) + f"\n{len(systems)} recipes\n"


def _cells(system: "ListedSystem") -> tuple[str, ...]:
    figures = [
        f"{name} {value:g}" for name, value in system.measured.items() if isinstance(value, float)
    ]
    return (
        system.recipe,
        system.system.paper,
        ",".join(map(str, system.system.rows)) or "-",
        ",".join(dict.fromkeys(system.encoders.values())),
        ",".join(dict.fromkeys(system.objectives.values())),
        ",".join(dict.fromkeys(system.teachers.values())) or "-",
        ", ".join(figures) or "not run",
        system.system.proof.rpartition("::")[2] or "-",
    )
