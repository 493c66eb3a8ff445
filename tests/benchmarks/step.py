"""A step of ``ssl-scale fit`` against a bare PyTorch loop of the same training.

Both run in one process and take turns, a round of a few steps each, so that what else the machine
does falls on both alike; the ratio is the median of the rounds' ratios. A round of the engine is
everything between two turns: loading, Lightning, DeepSpeed, the program, callbacks and records. The
bare loop trains an equal system on the same batches: views, forward, loss, backward, clipping, a
fused AdamW, the teacher's average; no Lightning, no DeepSpeed, nothing logged. It shares the
process's settings, so it gains from `keep_freed_memory` what the engine gains.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.benchmarks._demo import bindings, command, make_data
from tests.benchmarks.run import Row

GOAL = 1.05
WARM_ROUNDS = 2
# One image encoder that keeps a thread busy for a quarter of a second a step or so.
WIDE = """\
data:
  global_batch: 128
  streams: 4
  num_workers: 0
  fields: {image: {type: ImageField, extension: png, size_px: 8, channels: 1}}
  sources: {bare: {data: digits, split: train, fields: [image], feeds: [byol, mae]}}
views:
  image: {type: ImageView, field: image}
  crops:
    {type: AugmentedImage, field: image, size_px: 8, scale: [0.6, 1.0], flip: 0, rotate_degrees: 15}
encoders:
  image:
    {type: VisionTransformer, width: 128, depth: 2, num_heads: 4, patch: 2, size_px: 8, channels: 1}
masks: {patches: {type: RandomMask, view: image, ratio: 0.6}}
teachers: {ema: {type: EMATeacher, momentum: 0.99}}
objectives:
  byol:
    type: BYOL
    encoder: image
    view: crops
    projector: {type: MLPProjector, hidden: 128, out: 64}
    predictor: {type: MLPPredictor, hidden: 128}
  mae:
    type: MaskedPixels
    encoder: image
    mask: patches
    decoder: {type: MAEDecoder, hidden: 48, depth: 1, num_heads: 4}
optim: {type: AdamW, lr: {type: WarmupCosine, peak: 1.0e-3}, clip: 1.0}
train: {steps: 900, save_every: 100000, log_every: 20}
"""
SIZES = {"wide": "ViT 128 wide, 2 deep, BYOL and MAE", "demo": "the demo's recipe (tiny)"}
STEPS_A_ROUND = {"wide": 2, "demo": 9}
# A thread's own time hardly depends on what else the machine does, but leaves out waiting.
CLOCKS = {"elapsed": time.perf_counter, "processor time": time.process_time}
SECONDS, LEAST_ROUNDS = 30.0, 10


def rows() -> list[Row]:
    """Measure each size at two ZeRO stages, each in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder)
        (folder / "wide.yaml").write_text(WIDE)
        return [
            _row(size, stage, clock, pairs)
            for size in SIZES
            for stage in (2, 0)
            for clock, pairs in _measured(size, stage, folder).items()
        ]


def _row(size: str, stage: int, clock: str, pairs: list[tuple[float, float]]) -> Row:
    ratio = statistics.median(engine / bare for engine, bare in pairs)
    return {
        "measure": f"a step of fit, {SIZES[size]}, 128 samples, ZeRO-{stage}, {clock}",
        "value": round(1000 * statistics.median(engine for engine, _ in pairs), 1),
        "unit": "ms",
        "against": "bare PyTorch loop",
        "ratio": round(ratio, 3),
        # A tiny model's step is short enough that the engine's fixed cost shows; no goal is set.
        "goal": f"at most {GOAL:g} x bare" if size == "wide" else None,
        "met": ratio <= GOAL if size == "wide" else None,
    }


def _measured(size: str, stage: int, folder: Path) -> dict[str, list[tuple[float, float]]]:
    printed = command(size, str(stage), str(folder), folder=folder, module=__name__)
    return json.loads(printed.splitlines()[-1])  # type: ignore[no-any-return]


def measure(size: str, stage: int, folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Clock -> seconds a step of the engine and of the bare loop, round by round.

    Raises:
        RuntimeError: the two did not train alike.
    """
    import lightning.pytorch as pl

    from ssl_scale.recipe.reading import read_recipe
    from ssl_scale.train import fit as engine

    steps = STEPS_A_ROUND[size]
    recipe = read_recipe(
        folder / "wide.yaml" if size == "wide" else "demo",
        [f"train.zero={stage}", "train.validate_every=0", "train.save_every=100000"],
        {k: v for k, v in bindings(folder).items() if size == "demo" or k == "digits"},
    )
    bare = bare_loop(recipe)
    pairs: dict[str, list[tuple[float, float]]] = {clock: [] for clock in CLOCKS}
    rounds = pairs["elapsed"]

    class Turns(pl.Callback):
        """Gives the bare loop its turn after each round of the engine."""

        began = read_clocks()

        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            done = pl_module.progress.done
            if done == 0:
                self.begin = {k: v.detach().clone() for k, v in trained(pl_module.system)}
            elif done % steps == 0:
                turned = read_clocks()
                for _turn in range(steps):
                    system = next(bare)
                ended = read_clocks()
                for clock in CLOCKS:
                    engine_s, bare_s = (
                        turned[clock] - self.began[clock],
                        ended[clock] - turned[clock],
                    )
                    pairs[clock].append((engine_s / steps, bare_s / steps))
                if len(rounds) == 1:
                    check_alike(self.begin, pl_module.system, system)
                late = time.perf_counter() - first > SECONDS
                trainer.should_stop = late and len(rounds) >= WARM_ROUNDS + LEAST_ROUNDS
            if done % steps == 0:
                self.began = read_clocks()

    first = time.perf_counter()
    make_trainer = engine.make_trainer

    def with_turns(*arguments: Any) -> pl.Trainer:
        trainer = make_trainer(*arguments)
        trainer.callbacks.append(Turns())  # type: ignore[attr-defined]
        return trainer

    engine.make_trainer = with_turns  # type: ignore[assignment]
    engine.fit(recipe, folder / f"runs/{size}-{stage}")
    return {clock: both[WARM_ROUNDS:] for clock, both in pairs.items()}


def read_clocks() -> dict[str, float]:
    """Every clock's seconds."""
    return {clock: read() for clock, read in CLOCKS.items()}


def bare_loop(recipe: Any) -> Iterator[Any]:
    """Train an equal system; gives it after each step."""
    from ssl_scale.data.loader import TrainingStream, dataloader
    from ssl_scale.optim.groups import parameter_groups
    from ssl_scale.system.build import build_system
    from ssl_scale.train import feed
    from ssl_scale.train.mixing import mixture_of

    torch.manual_seed(recipe.train.seed)
    system = build_system(recipe)
    optim = recipe.optim.build()
    groups = parameter_groups(system, optim)
    optimizer = torch.optim.AdamW(groups, betas=optim.betas, eps=optim.eps, fused=True)
    parameters = [parameter for _, parameter in trained(system)]
    teacher: Any
    [teacher] = system.teachers.values()
    students = dict(system.named_parameters())
    averages = [mine.data for _, mine in teacher.named_parameters()]
    averaged = [students[name].data for name, _ in teacher.named_parameters()]
    theirs = dict(system.named_buffers())
    buffers = [(mine, theirs[name]) for name, mine in teacher.named_buffers()]
    sources = feed.open_sources(recipe).training
    stream = TrainingStream(sources, mixture_of(recipe, sources, recipe.train.steps))
    loader = dataloader(stream)
    for index, step in enumerate(loader):
        [batches] = step
        progress = index / recipe.train.steps
        for group in optimizer.param_groups:
            group["lr"] = optim.lr(progress) * group["lr_scale"]
            group["weight_decay"] = optim.weight_decay(progress) * group["wd_scale"]
        optimizer.zero_grad()
        asked = {"index": index, "progress": progress, "seed": recipe.train.seed}
        losses = [system.loss(system.answers(batch, **asked)) for batch in batches]
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        for parameter in parameters:
            if parameter.grad is None:  # its objective is not fed by this source
                parameter.grad = torch.zeros_like(parameter)
        nn.utils.clip_grad_norm_(parameters, optim.clip, foreach=True)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, averaged, 1 - teacher.momentum(progress))
            for mine, other in buffers:
                mine.copy_(other)
        yield system


def trained(system: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that gradients move."""
    return [(name, p) for name, p in system.named_parameters() if p.requires_grad]


@torch.no_grad()
def check_alike(begin: dict[str, Tensor], one: nn.Module, other: nn.Module) -> None:
    """Refuse to compare the times of different trainings."""
    others = dict(trained(other))
    apart = sum(float((p - others[name]).abs().sum()) for name, p in trained(one))
    moved = sum(float((p - begin[name]).abs().sum()) for name, p in trained(one))
    # Where a true gradient is zero, Adam makes steps of rounding noise, which may differ.
    if not apart < 0.05 * moved:
        raise RuntimeError(f"both must train alike, but are {apart / moved:.1%} of the way apart")


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
