"""Saving and loading a run's state: what blocks training, and throughput against others.

The state is that of a real run after a step: fp32 weights and both moments of 51 M parameters.

*Blocked* is what training waits for: time within the save call, and what the next optimizer step
waits for the copy that is made meanwhile. It is compared with a save that training waits for until
it is committed. The run's steps with a save are also compared with those without, since copying
and writing take processor time and bandwidth from training all the same.

`torch.distributed.checkpoint` and ``torch.save`` write the same tensors. At *equal durability*
every byte and name is flushed to the disk and has a checksum (XXH3) beside it, which is verified on
loading; the others' bare figures, without, are shown too. All load into tensors that are there.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks._demo import command
from tests.benchmarks.run import Row

ROUNDS = 5
STEPS, EVERY = 24, 4
RECIPE = """\
data:
  global_batch: 32
  num_workers: 0
  streams: 1
  fields: {image: {type: ImageField, extension: png, size_px: 8, channels: 1}}
  sources: {bare: {data: digits, fields: [image], feeds: [mae]}}
views: {image: {type: ImageView, field: image}}
encoders:
  image:
    {type: VisionTransformer, width: 512, depth: 16, num_heads: 8, patch: 2, size_px: 8,
     channels: 1}
masks: {patches: {type: RandomMask, view: image, ratio: 0.5}}
objectives:
  mae:
    type: MaskedPixels
    encoder: image
    mask: patches
    decoder: {type: MAEDecoder, hidden: 64, depth: 1, num_heads: 4}
optim: {type: AdamW, lr: {type: WarmupCosine, peak: 1.0e-3}, clip: 1.0}
train: {steps: STEPS, zero: 2, save_every: EVERY, keep_last: 1}
"""
OURS, DCP, PLAIN = "ours", "torch.distributed.checkpoint", "torch.save"


def rows() -> list[Row]:
    """Measure in processes of their own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command("ssl-data", "example", "digits", "raw", folder=folder)
        command("ssl-data", "build", "raw/test", "shards", "--workers=0", folder=folder)
        text = RECIPE.replace("STEPS", str(STEPS)).replace("EVERY", str(EVERY))
        (folder / "fifty.yaml").write_text(text)
        printed = command(str(folder), folder=folder, module=__name__)
    measured = json.loads(printed.splitlines()[-1])
    return [
        *_blocked(measured),
        *(
            _row(measured, kind, against, bare)
            for kind in ("save", "load")
            for against in (DCP, PLAIN)
            for bare in (False, True)
        ),
    ]


def _blocked(measured: Mapping[str, Any]) -> list[Row]:
    synchronous = statistics.median(each[OURS] for each in measured["seconds"]["save"])
    blocked, step_s = measured["blocked_s"], measured["step_s"]
    slower_s = measured["saving_step_s"] - EVERY * step_s
    size = f"{measured['mb']:.0f} MB, steps of {step_s:.2f} s"
    return [
        {
            "measure": f"what training waits for at a save, {size}",
            "value": round(1000 * blocked, 1),
            "unit": "ms",
            "against": f"a save that it waits for to the end, {synchronous:.2f} s",
            "ratio": round(blocked / synchronous, 4),
            "goal": "at most 0.05 x",
            "met": blocked <= 0.05 * synchronous,
        },
        {
            "measure": f"how much longer steps take in all for a save, {size}",
            "value": round(1000 * slower_s),
            "unit": "ms",
            "against": f"a save that training waits for to the end, {synchronous:.2f} s",
            "ratio": round(slower_s / synchronous, 2),
            "goal": None,
            "met": None,
        },
    ]


def _row(measured: Mapping[str, Any], kind: str, against: str, bare: bool) -> Row:
    key = f"{against}, bare" if bare else against
    seconds = measured["seconds"][kind]
    ratio = statistics.median(each[key] / each[OURS] for each in seconds)
    has_goal = against == DCP and not bare
    what = {"save": "save, to the commit", "load": "load into place"}[kind]
    how = "without flush and checksum" if bare else "at equal durability"
    return {
        "measure": f"{what}, {measured['mb']:.0f} MB",
        "value": round(measured["mb"] / statistics.median(each[OURS] for each in seconds)),
        "unit": "MB/s",
        "against": f"{against} {how}",
        "ratio": round(ratio, 2),
        "goal": "at least 1 x" if has_goal else None,
        "met": ratio >= 1 if has_goal else None,
    }


def measure(folder: Path) -> dict[str, Any]:
    """Train, saving every few steps; then save and load in turns with the live engine."""
    import lightning.pytorch as pl

    from ssl_scale.recipe.reading import read_recipe
    from ssl_scale.train import fit as engine
    from ssl_scale.train.callbacks.checkpointing import Checkpointing

    recipe = read_recipe(folder / "fifty.yaml", [], {"digits": str(folder / "shards")})
    found: dict[str, Any] = {}
    times: list[float] = []
    blocked: list[float] = []

    class Watch(pl.Callback):
        """Notes when steps end and what saves have cost so far."""

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            saving = next(each for each in trainer.callbacks if isinstance(each, Checkpointing))
            times.append(time.perf_counter())
            blocked.append(saving.blocked_s)
            if pl_module.progress.done == STEPS - 1:
                saving.writer.join()
                found.update(in_turns(pl_module.sharded, folder))

    make_trainer = engine.make_trainer

    def with_watching(*arguments: Any) -> pl.Trainer:
        trainer = make_trainer(*arguments)
        trainer.callbacks.append(Watch())  # type: ignore[attr-defined]
        return trainer

    engine.make_trainer = with_watching  # type: ignore[assignment]
    engine.fit(recipe, folder / "run")
    # A round: the step that ends with a save, and those until the next one. The first rounds warm
    # up. Steps that no save disturbs are those just before the next one.
    rounds = [times[at + EVERY] - times[at] for at in range(EVERY - 2, STEPS - 2 - EVERY, EVERY)]
    quiet = [times[at] - times[at - 1] for at in range(EVERY - 2, STEPS - 2, EVERY)]
    each = [blocked[at + EVERY] - blocked[at] for at in range(EVERY - 2, STEPS - 2 - EVERY, EVERY)]
    return {
        **found,
        "step_s": statistics.median(quiet[1:]),
        "saving_step_s": statistics.median(rounds[1:]),
        "blocked_s": statistics.median(each[1:]),
    }


def in_turns(sharded: Any, folder: Path) -> dict[str, Any]:
    """Seconds of each way, a round a row; the first round warms up and does not count."""
    from ssl_scale.checkpoint.layout import folder_name
    from ssl_scale.checkpoint.reader import Reader
    from ssl_scale.train.checkpoint.contents import capture, restore
    from ssl_scale.train.checkpoint.writer import Writer

    writer = Writer(folder / "turns", rank=0, world_size=1, attempt=1, keep_last=1)
    pieces = capture(sharded, {}, {}).pieces
    tensors = {name: piece.values for name, piece in pieces.items()}
    saves: list[dict[str, float]] = []
    loads: list[dict[str, float]] = []
    for number in range(ROUNDS + 1):

        def save_ours(step: int = number) -> None:
            writer.save(step, capture(sharded, {}, {}), {})
            if (failure := writer.join()) is not None:
                raise RuntimeError(failure)

        def load_ours(step: int = number) -> None:
            reader = Reader(folder / "turns" / folder_name(step))
            restore(sharded, reader)

        ways: list[tuple[str, Callable[[], None], Callable[[], None]]] = [
            (OURS, save_ours, load_ours)
        ]
        for is_bare in (False, True):
            suffix = ", bare" if is_bare else ""
            dcp, plain = folder / f"dcp{is_bare}", folder / f"plain{is_bare}"
            ways += [
                (
                    DCP + suffix,
                    lambda at=dcp, bare=is_bare: save_dcp(tensors, at, bare),
                    lambda at=dcp, bare=is_bare: load_dcp(tensors, at, bare),
                ),
                (
                    PLAIN + suffix,
                    lambda at=plain, bare=is_bare: save_plain(tensors, at, bare),
                    lambda at=plain, bare=is_bare: load_plain(tensors, at, bare),
                ),
            ]
        turn = number % len(ways)
        ways = ways[turn:] + ways[:turn]
        saves.append({name: _timed(save) for name, save, _ in ways})
        loads.append({name: _timed(load) for name, _, load in ways})
    total = sum(values.nbytes for values in tensors.values())
    return {"mb": total / 1e6, "seconds": {"save": saves[1:], "load": loads[1:]}}


def _timed(act: Callable[[], None]) -> float:
    os.sync()
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def save_dcp(tensors: Mapping[str, Tensor], folder: Path, bare: bool) -> None:
    """``torch.distributed.checkpoint`` into a fresh folder; it flushes files unless told not to."""
    import torch.distributed.checkpoint as dcp

    shutil.rmtree(folder, ignore_errors=True)
    writer = dcp.FileSystemWriter(folder, sync_files=not bare)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(dict(tensors), storage_writer=writer, no_dist=True)
    if not bare:
        seal(folder)


def load_dcp(tensors: Mapping[str, Tensor], folder: Path, bare: bool) -> None:
    """Into the tensors."""
    import torch.distributed.checkpoint as dcp

    if not bare:
        verify(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = dcp.FileSystemReader(folder)
        dcp.load(dict(tensors), storage_reader=reader, no_dist=True)


def save_plain(tensors: Mapping[str, Tensor], folder: Path, bare: bool) -> None:
    """``torch.save`` into a fresh folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with (folder / "all.pt").open("wb") as file:
        torch.save(dict(tensors), file)
        if not bare:
            file.flush()
            os.fsync(file.fileno())
    if not bare:
        seal(folder)


def load_plain(tensors: Mapping[str, Tensor], folder: Path, bare: bool) -> None:
    """Into the tensors."""
    if not bare:
        verify(folder)
    loaded = torch.load(folder / "all.pt", weights_only=True)
    for name, values in tensors.items():
        values.copy_(loaded[name])


def seal(folder: Path) -> None:
    """A checksum of each file beside it, and all names flushed: what ours does as well."""
    from ssl_scale.checkpoint.layout import checksum, sync, write_durably

    sums = {path.name: checksum(path) for path in sorted(folder.iterdir())}
    write_durably(folder / "sums.json", json.dumps(sums).encode())
    sync(folder)
    sync(folder.parent)


def verify(folder: Path) -> None:
    """Compare each file with its checksum."""
    from ssl_scale.checkpoint.layout import checksum

    sums = json.loads((folder / "sums.json").read_text())
    for name, expected in sums.items():
        if checksum(folder / name) != expected:
            raise RuntimeError(f"{folder / name} is damaged")


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
