"""Saving and loading a run's state against ``torch.save`` and ``torch.load`` of the same tensors.

The state is that of a real run after a step: fp32 weights and both moments of 51 M parameters. Our
save copies, which blocks training, and then writes in the background; both are timed, up to the
committed checkpoint. All files are flushed to the disk: what is not there yet is no checkpoint.
Ours also computes and, loading, verifies a checksum of every byte.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks._demo import command
from tests.benchmarks.run import Row

ROUNDS = 3
RECIPE = """\
data:
  global_batch: 2
  num_workers: 0
  streams: 1
  fields: {image: {type: ImageField, extension: png, size_px: 8, channels: 1}}
  sources: {bare: {data: digits, fields: [image], feeds: [mae]}}
views: {image: {type: ImageView, field: image}}
encoders:
  image:
    {type: VisionTransformer, width: 512, depth: 16, num_heads: 8, patch: 4, size_px: 8,
     channels: 1}
masks: {patches: {type: RandomMask, view: image, ratio: 0.5}}
objectives:
  mae:
    type: MaskedPixels
    encoder: image
    mask: patches
    decoder: {type: MAEDecoder, hidden: 64, depth: 1, num_heads: 4}
optim: {type: AdamW, lr: {type: WarmupCosine, peak: 1.0e-3}, clip: 1.0}
train: {steps: 2, zero: 2, save_every: 100000}
"""


def rows() -> list[Row]:
    """Measure in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command("ssl-data", "example", "digits", "raw", folder=folder)
        command("ssl-data", "build", "raw/test", "shards", "--workers=0", folder=folder)
        (folder / "fifty.yaml").write_text(RECIPE)
        printed = command(str(folder), folder=folder, module=__name__)
    measured = json.loads(printed.splitlines()[-1])
    size_mb, seconds = measured["mb"], measured["seconds"]

    def row(measure: str, ours: str, theirs: str, goal: float | None) -> Row:
        ratio = statistics.median(r[theirs] / r[ours] for r in seconds)
        return {
            "measure": f"{measure}, {size_mb:.0f} MB",
            "value": round(size_mb / statistics.median(r[ours] for r in seconds)),
            "unit": "MB/s",
            "against": theirs,
            "ratio": round(ratio, 2),
            "goal": None if goal is None else f"at least {goal:g} x {theirs}",
            "met": None if goal is None else ratio >= goal,
        }

    return [
        row("save, the part that blocks training", "copy", "torch.save", 1.0),
        row("save, until committed on disk", "save", "torch.save", None),
        row("load into the engine, checksums verified", "load", "torch.load", None),
    ]


def measure(folder: Path) -> dict[str, Any]:
    """Train a step, then save and load in turns."""
    import lightning.pytorch as pl

    from ssl_scale.recipe.reading import read_recipe
    from ssl_scale.train import fit as engine

    recipe = read_recipe(folder / "fifty.yaml", [], {"digits": str(folder / "shards")})
    found: dict[str, Any] = {}

    class AfterOneStep(pl.Callback):
        """Measures with the live engine."""

        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if pl_module.progress.done == 1:
                found.update(in_turns(pl_module.sharded, folder))

    make_trainer = engine.make_trainer

    def with_measuring(*arguments: Any) -> pl.Trainer:
        trainer = make_trainer(*arguments)
        trainer.callbacks.append(AfterOneStep())  # type: ignore[attr-defined]
        return trainer

    engine.make_trainer = with_measuring  # type: ignore[assignment]
    engine.fit(recipe, folder / "run")
    return found


def in_turns(sharded: Any, folder: Path) -> dict[str, Any]:
    """Seconds of each way, a round a row; the first round warms up and does not count."""
    from ssl_scale.checkpoint.layout import folder_name
    from ssl_scale.checkpoint.reader import Reader
    from ssl_scale.train.checkpoint.contents import capture, restore
    from ssl_scale.train.checkpoint.writer import Writer

    writer = Writer(folder / "checkpoints", rank=0, world_size=1, attempt=1, keep_last=1)
    plain = folder / "plain.pt"
    seconds: list[dict[str, float]] = []
    for number in range(ROUNDS + 1):
        os.sync()
        took: dict[str, float] = {}
        began = time.perf_counter()
        contents = capture(sharded, {}, {})
        took["copy"] = time.perf_counter() - began
        writer.save(number, contents, {})
        if (failure := writer.join()) is not None:
            raise RuntimeError(failure)
        took["save"] = time.perf_counter() - began
        tensors = {name: piece.values for name, piece in contents.pieces.items()}
        began = time.perf_counter()
        torch.save(tensors, plain)
        with plain.open("rb+") as file:
            os.fsync(file.fileno())
        took["torch.save"] = time.perf_counter() - began
        began = time.perf_counter()
        restore(sharded, Reader(folder / "checkpoints" / folder_name(number)))
        took["load"] = time.perf_counter() - began
        began = time.perf_counter()
        loaded = torch.load(plain)
        for name, values in tensors.items():  # into place, as a resumed run must
            values.copy_(loaded[name])
        took["torch.load"] = time.perf_counter() - began
        seconds.append(took)
        del loaded
        plain.unlink()
    total = sum(values.nbytes for values in tensors.values())
    return {"mb": total / 1e6, "seconds": seconds[1:]}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
