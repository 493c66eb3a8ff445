"""States of real ranks (parameters, gradients, masters, moments) against the plan's formulas."""

from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.run import Row
from tests.train.live_bytes import measured, planned
from tests.train.tiny import make_recipe

STATES = ("parameters", "gradients", "masters", "moments")
WITHIN = 0.05


def state_rows(folder: Path) -> list[Row]:
    """Every stage and precision that there is, with 1, 2 and 4 ranks; teachers under stage 3."""
    recipe = make_recipe(folder)
    return [row for ranks in (1, 2, 4) for row in _rows(recipe, folder, ranks)]


def _rows(recipe: Path, folder: Path, ranks: int) -> Iterator[Row]:
    for stage in range(4):
        for precision in ("fp32", "bf16") if stage else ("fp32",):
            settings = (f"train.zero={stage}", f"train.precision={precision}")
            place = folder / f"{ranks}-{stage}-{precision}"
            pages = measured(recipe, place, ranks, *settings)
            expected = planned(recipe, ranks, *settings)
            where = f"of a rank of {ranks}, ZeRO-{stage}, {precision}"
            found = max(sum(page[kind] for kind in STATES) for page in pages)
            yield _row(f"states {where}", found, expected.states)
            if stage == 3:
                teachers = max(page["teachers"] for page in pages)
                yield _row(f"a teacher {where}", teachers, expected.teachers)


def _row(measure: str, found: int, expected: int) -> Row:
    return {
        "measure": measure,
        "value": round(found / 2**20, 2),
        "unit": "MiB",
        "against": "the formulas of ssl_scale.plan",
        "ratio": round(found / expected, 4),
        "goal": f"within {WITHIN:.0%}",
        "met": abs(found / expected - 1) <= WITHIN,
    }
