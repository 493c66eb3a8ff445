"""The largest resident memory of each rank while it builds a model, and through a step."""

import json
import os
from functools import partial
from pathlib import Path

from tests.train.tiny import fit_ranks

# 100 million parameters in one encoder, so that building it outweighs everything else.
LARGE = (
    *("encoders.image.width=768", "encoders.image.depth=14", "encoders.image.num_heads=8"),
    *("train.steps=1", "data.per_step=all", "data.global_batch=16", "objectives.mae=null"),
)
WITH_TEACHER = (*LARGE, "data.sources.pictures.feeds=[byol,classify]")
WITHOUT_TEACHER = (
    *(*LARGE, "data.sources.pictures.feeds=[classify]"),
    *("teachers=null", "objectives.byol=null"),
)


def note_peaks(folder: Path, builds_only: bool) -> None:
    """Let every rank write how far its memory rose above what imports had taken.

    Args:
        folder: gets ``rank-<r>.json``: ``built``, ``stepped`` and, of the model, ``whole``; bytes.
        builds_only: end the rank when its model is built.
    """
    from ssl_scale.sharding import full_numel
    from ssl_scale.train.module import PretrainingModule
    from ssl_scale.train.ops import Ops

    build, steps = PretrainingModule.configure_model, Ops.step
    page: dict[str, int] = {}

    def write(name: str) -> None:
        page[name] = _status("VmHWM") - page["before"]
        (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(page))

    def build_and_note(self: PretrainingModule) -> None:
        page["before"] = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        build(self)
        page["whole"] = 4 * sum(map(full_numel, self.system.parameters()))
        write("built")
        if builds_only:
            raise SystemExit(0)

    def step_and_note(self: Ops) -> bool:
        taken = steps(self)
        write("stepped")
        return taken

    PretrainingModule.configure_model = build_and_note  # type: ignore[method-assign]
    Ops.step = step_and_note  # type: ignore[method-assign]


def _status(field: str) -> int:
    """A size of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def peaks(
    recipe: Path, folder: Path, world_size: int, *overrides: str, builds_only: bool = True
) -> list[dict[str, int]]:
    """What `note_peaks` writes, of every rank, under ZeRO-3 in fp32."""
    folder.mkdir(parents=True)
    note = partial(note_peaks, folder, builds_only)
    codes = fit_ranks(recipe, folder / "run", world_size, "train.zero=3", *overrides, change=note)
    if any(codes):
        raise RuntimeError(f"all ranks must end with 0, but ended with {codes}")
    pages = [folder / f"rank-{rank}.json" for rank in range(world_size)]
    return [json.loads(page.read_text()) for page in pages]
