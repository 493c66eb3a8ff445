"""A tiny recipe over tiny shards, its training in real ranks, and the same training without engine.

The optimizer's epsilon is large: where a true gradient is zero (key biases, biases before norms)
Adam would turn rounding noise into whole steps, and no two ways of adding up would agree.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from ssl_scale.checkpoint.reader import Reader, read_weights
from ssl_scale.data.loader import TrainingStream
from ssl_scale.optim.groups import parameter_groups
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.sharding import Unsharded
from ssl_scale.system.build import build_system
from ssl_scale.system.system import System
from ssl_scale.train import feed, mixing
from ssl_scale.types import Batch
from tests.data.shards import Sample, digit_samples, write_folder
from tests.distributed import run_ranks

PRELOAD = ("deepspeed.runtime.zero.muon.original_muon", "ssl_scale.train.fit")

MOMENTS = ("moment.exp_avg", "moment.exp_avg_sq", "moment.momentum_buffer")
KINDS = ("master", *MOMENTS, "value", "buffer", "observer")

RECIPE = """\
data:
  global_batch: 8
  num_workers: 0
  window: 16
  streams: 4
  fields:
    image: {type: ImageField, extension: png, size_px: 8, channels: 1}
    label: {type: LabelField, extension: cls, num_classes: 10}
    text: {type: TextField, extension: txt, tokenizer: tokenizer, max_tokens: 8}
  sources:
    pictures: {data: pictures, fields: [image, label], feeds: [byol, mae, classify], weight: 3}
    texts: {data: pictures, fields: [text], feeds: [mlm], weight: 1}
views:
  image: {type: ImageView, field: image}
  crops: {type: AugmentedImage, field: image, size_px: 8, flip: 0}
  text: {type: TextView, field: text}
encoders:
  image:
    {type: VisionTransformer, width: 8, depth: 1, num_heads: 2, patch: 4, size_px: 8, channels: 1}
  text: {type: TextTransformer, width: 8, depth: 1, num_heads: 2, max_tokens: 8}
masks:
  patches: {type: RandomMask, view: image, ratio: 0.5}
  words: {type: TokenMask, view: text, encoder: text, ratio: 0.3}
teachers: {ema: {type: EMATeacher, momentum: 0.9}}
objectives:
  byol:
    type: BYOL
    encoder: image
    view: crops
    projector: {type: MLPProjector, hidden: 8, out: 6, norm: NORM}
    predictor: {type: MLPPredictor, hidden: 8, norm: NORM}
  mae:
    {type: MaskedPixels, encoder: image, mask: patches,
     decoder: {type: MAEDecoder, hidden: 8, depth: 1, num_heads: 2}}
  classify: {type: CrossEntropy, encoder: image, label: label, view: image}
  mlm: {type: MaskedTokens, encoder: text, mask: words}
optim: {type: AdamW, lr: {type: WarmupCosine, peak: 1.0e-2}, eps: 1.0e-2, weight_decay: 0.1}
train: {steps: 8, zero: 2, save_every: 1000, log_every: 1}
paths: {pictures: FOLDER/pictures, tokenizer: FOLDER/tokenizer.json}
"""


def make_recipe(folder: Path, norm: str = "layer") -> Path:
    """Write shards, a tokenizer and the recipe; every third sample has a label."""
    samples: list[tuple[str, Sample]] = [
        (key, dict(members) if number % 3 == 0 else {**members, "cls": b"-"})
        for number, (key, members) in enumerate(digit_samples(60))
    ]
    unlabelled = [
        (key, {name: value for name, value in members.items() if value != b"-"})
        for key, members in samples
    ]
    write_folder(folder / "pictures", [unlabelled[:25], unlabelled[25:]])
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "scan", "of", "the", "digit"]
    vocabulary = {word: number for number, word in enumerate([*words, *map(str, range(10))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    path = folder / "tiny.yaml"
    path.write_text(RECIPE.replace("FOLDER", str(folder)).replace("NORM", norm))
    return path


def fit_here(
    recipe: Path,
    run_folder: Path,
    overrides: Sequence[str],
    max_steps: int | None,
    change: Callable[[], None] | None,
) -> int:
    """``ssl-scale fit`` as one rank; returns the exit code."""
    from ssl_scale.train.fit import fit

    if change is not None:
        change()
    try:
        fit(read_recipe(recipe, list(overrides)), run_folder, max_steps=max_steps)
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def fit_ranks(
    recipe: Path,
    run_folder: Path,
    world_size: int = 1,
    *overrides: str,
    max_steps: int | None = None,
    change: Callable[[], None] | None = None,
    limit_s: float = 120,
) -> list[int]:
    """Train in new processes; returns their exit codes.

    Args:
        recipe: the recipe's file.
        run_folder: of the run.
        world_size: number of processes.
        overrides: of the recipe.
        max_steps: stop after so many.
        change: called first in every process: what a test alters in the engine.
        limit_s: the processes are ended after this time.
    """
    told = (recipe, run_folder, overrides, max_steps, change)
    return run_ranks(fit_here, world_size, *told, preload=PRELOAD, limit_s=limit_s)


def partition_everything() -> None:
    """Let ZeRO-3 keep no small parameter whole, as DeepSpeed does by default."""
    from ssl_scale.train import fit, strategy

    def config(*settings: Any, **more: Any) -> dict[str, Any]:
        made = strategy.zero_config(*settings, **more)
        made["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return made

    fit.zero_config = config


mixture_of = mixing.mixture_of


@dataclass
class Outcome:
    """What training left behind."""

    losses: list[dict[str, float]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)


def outcome_of(run_folder: Path) -> Outcome:
    """A run's losses of every step and its last weights."""
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    losses = [
        {name: value for name, value in line.items() if name.startswith("loss/")}
        for line in lines
        if line["kind"] == "train"
    ]
    return Outcome(losses, read_weights(newest(run_folder)))


def newest(run_folder: Path) -> Path:
    """The folder of a run's last checkpoint."""
    return max((run_folder / "checkpoints").glob("step-?????????"))


def saved(run_folder: Path, step: int | None = None) -> dict[str, Tensor]:
    """Every tensor of a run's checkpoint, by kind and name, and the optimizer's counters.

    Args:
        run_folder: of the run.
        step: of the checkpoint; the last one unless told.
    """
    folder = run_folder / "checkpoints" / f"step-{step:09d}" if step else newest(run_folder)
    reader = Reader(folder)
    found = {
        f"{kind}/{name}": reader.read_whole(f"{kind}/{name}")
        for kind in KINDS
        for name in reader.names(kind)
    }
    counters = {f"counter/{name}": reader.counter(name) for name in reader.names("master")}
    kept = {name: torch.tensor(value) for name, value in counters.items() if value is not None}
    return found | kept


def train_plainly(
    recipe_path: Path,
    *overrides: str,
    num_steps: int | None = None,
    left_out: Sequence[int] = (),
    passed_over: Sequence[int] = (),
    dtype: torch.dtype = torch.float32,
    see: Callable[[dict[str, Tensor]], None] | None = None,
) -> Outcome:
    """The same training by a few lines of PyTorch in this process.

    Args:
        recipe_path: the recipe's file.
        overrides: of the recipe.
        num_steps: stop after so many.
        left_out: steps that count, but are not taken.
        passed_over: steps of data that no step is made of.
        dtype: of all numbers.
        see: is shown every step's gradients.
    """
    recipe = read_recipe(recipe_path, list(overrides))
    total = recipe.train.steps
    assert total is not None
    torch.manual_seed(recipe.train.seed)
    system = build_system(recipe, dtype=dtype).to(dtype)
    optim = recipe.optim.build(global_batch=recipe.data.global_batch)
    optimizer = optim.build(parameter_groups(system, optim))
    trained = [parameter for parameter in system.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    outcome = Outcome()
    for index, batches in enumerate(_whole_batches(recipe, num_steps or total, passed_over)):
        if index in left_out:
            continue
        progress = index / total
        for teacher in system.teachers.values():
            teacher.before_step(system, Unsharded(), progress)
        counts: dict[str, Tensor] = {}
        losses: dict[str, Tensor] = {}
        for batch in batches:
            answers = system.answers(batch, index=index, progress=progress, seed=recipe.train.seed)
            counts |= system.counts(answers)
            losses |= {name: loss.total for name, loss in system.losses(answers).items()}
        terms = {
            name: system.terms[name].weight(progress) * total_loss / counts[name].clamp(min=1)
            for name, total_loss in losses.items()
        }
        optim.apply(optimizer, progress, index)
        optimizer.zero_grad(set_to_none=False)
        torch.stack(list(terms.values())).sum().backward()
        if see is not None:
            see({n: p.grad for n, p in system.named_parameters() if p.grad is not None})
        if optim.clip:
            nn.utils.clip_grad_norm_(trained, optim.clip)
        optimizer.step()
        for teacher in system.teachers.values():
            teacher.update(system, Unsharded(), progress)
        outcome.losses.append(
            {
                f"loss/{name}": float(total_loss.detach()) / float(counts[name])
                for name, total_loss in losses.items()
                if counts[name]
            }
        )
    outcome.weights = {**system.state_dict()}
    return outcome


def _whole_batches(
    recipe: Recipe, num_steps: int, passed_over: Sequence[int]
) -> Iterator[list[Batch]]:
    sources = feed.open_sources(recipe).training
    mixture = mixture_of(recipe, sources, recipe.train.steps or num_steps)
    stream = TrainingStream(sources, mixture, end_step=num_steps + len(passed_over))
    for micro_batches in stream:
        [batches] = micro_batches
        if micro_batches.step not in passed_over:
            yield list(batches)


def worst_loss(one: Outcome, other: Outcome) -> float:
    """Largest relative difference of a loss at any step; the same losses must be there."""
    assert [step.keys() for step in one.losses] == [step.keys() for step in other.losses]
    return max(
        abs(value - theirs[name]) / abs(theirs[name])
        for mine, theirs in zip(one.losses, other.losses, strict=True)
        for name, value in mine.items()
    )


def worst_weight(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> tuple[float, str]:
    """Largest difference of two sets of tensors, and where it is."""
    assert one.keys() == other.keys()
    return max((float((one[name] - other[name]).abs().max()), name) for name in one)


def system_of(recipe: Path, *overrides: str) -> System:
    """The recipe's system, built here."""
    torch.manual_seed(0)
    return build_system(read_recipe(recipe, list(overrides)))
