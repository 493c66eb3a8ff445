"""How far a rank rises while it builds a model under ZeRO-3 in fp32, and through a step."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.run import Row
from tests.train.rank_peaks import WITH_TEACHER, WITHOUT_TEACHER, peaks
from tests.train.tiny import make_recipe

KINDS = {"a student": WITHOUT_TEACHER, "a student and its average": WITH_TEACHER}
# 200 million parameters are built; 50 million are stepped, of which a rank holds much more.
BUILT, STEPPED = "encoders.image.depth=28", "encoders.image.depth=7"
ROOM = 0.1  # a few whole tensors on their way into pieces


def rows() -> list[Row]:
    """With 1, 2 and 4 ranks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = make_recipe(folder)
        return [
            row
            for ranks in (1, 2, 4)
            for kind in KINDS
            for row in _rows(recipe, folder / f"{ranks}-{kind}", ranks, kind)
        ]


def _rows(recipe: Path, folder: Path, ranks: int, kind: str) -> Iterator[Row]:
    settings = KINDS[kind]
    built = _fullest(peaks(recipe, folder / "built", ranks, *settings, BUILT), "built")
    share = built[0] / built[1]
    yield {
        "measure": f"peak of a rank of {ranks} that builds {kind}",
        "value": round(built[0] / 2**20),
        "unit": "MiB",
        "against": f"the whole in fp32, {built[1] / 2**20:.0f} MiB",
        "ratio": round(share, 3),
        "goal": f"at most 1/{ranks} + {ROOM}",
        "met": share <= 1 / ranks + ROOM,
    }
    pages = peaks(recipe, folder / "stepped", ranks, *settings, STEPPED, builds_only=False)
    stepped = _fullest(pages, "stepped")
    yield {
        "measure": f"peak of a rank of {ranks} that trains one step of {kind}",
        "value": round(stepped[0] / 2**20),
        "unit": "MiB",
        "against": f"the whole in fp32, {stepped[1] / 2**20:.0f} MiB",
        "ratio": round(stepped[0] / stepped[1], 3),
        "goal": None,
        "met": None,
    }


def _fullest(pages: list[dict[str, int]], name: str) -> tuple[int, int]:
    """(peak of the fullest rank, the whole model), bytes."""
    return max(page[name] for page in pages), pages[0]["whole"]
