"""A small real run without an engine: real data, a plain training loop, a real checkpoint.

What a run leaves behind is read by export, evaluation and report; they need not know who trained.
"""

from contextlib import closing
from pathlib import Path

import torch
from ssl_scale_data_tools.cli import main as ssl_data

from ssl_scale.data.source import Source
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.report.features import read_batches
from ssl_scale.sharding import Unsharded
from ssl_scale.system.build import build_fields, build_system
from ssl_scale.train.checkpoint.contents import Contents, Piece
from ssl_scale.train.checkpoint.writer import Writer
from ssl_scale.train.environment import record_environment, write_atomically
from ssl_scale.train.records import Records

VOCAB_SIZE = 300
RECIPE = """\
data:
  global_batch: 64
  num_workers: 0
  fields:
    image: {type: ImageField, extension: png, size_px: 8, channels: 1}
    label: {type: LabelField, extension: cls, num_classes: 10}
    caption: {type: TextField, extension: txt, tokenizer: tokenizer, max_tokens: 48}
  sources:
    labelled:
      {data: digits, split: train_labelled, fields: [image, label], feeds: [mae, byol, classify]}
    captioned: {data: digits, split: train_captioned, fields: [image, caption], feeds: [mae, clip]}
    texts: {data: digits, split: train_captioned, fields: [caption], feeds: [mlm]}
views:
  image: {type: ImageView, field: image}
  crops: {type: AugmentedImage, field: image, size_px: 8, scale: [0.7, 1.0], flip: 0}
  caption: {type: TextView, field: caption}
encoders:
  image:
    {type: VisionTransformer, width: 32, depth: 2, num_heads: 2, patch: 2, size_px: 8, channels: 1,
     pool: mean}
  text: {type: TextTransformer, width: 32, depth: 1, num_heads: 2, max_tokens: 48, pool: mean}
masks:
  patches: {type: RandomMask, view: image, ratio: 0.5}
  words: {type: TokenMask, view: caption, encoder: text}
teachers:
  ema: {type: EMATeacher, momentum: 0.9}
objectives:
  mae:
    {type: MaskedPixels, encoder: image, mask: patches, normalize: true,
     decoder: {type: MAEDecoder, hidden: 16, depth: 1, num_heads: 2}}
  byol:
    type: BYOL
    encoder: image
    view: crops
    projector: {type: MLPProjector, hidden: 32, out: 16}
    predictor: {type: MLPPredictor, hidden: 32}
  clip:
    {type: InfoNCE, between: [image, text], views: [image, caption],
     projector: {type: MLPProjector, hidden: 32, out: 16}}
  classify: {type: CrossEntropy, encoder: image, label: label, view: image}
  mlm: {type: MaskedTokens, encoder: text, mask: words}
optim: {type: AdamW, lr: {type: WarmupCosine, peak: 1.0e-3}}
train: {steps: 60}
evaluation:
  pool: {data: digits, split: train}
  test: {data: digits, split: test}
  encoder: image
  labels_per_class: [1, 5]
  classes: [zero, one, two, three, four, five, six, seven, eight, nine]
  prompts: ["a picture of the digit {}", "the digit {}"]
  text:
    train: {data: digits, split: train_captioned}
    test: {data: digits, split: test}
    objective: mlm
"""


def plain_run(base: Path) -> Path:
    """The run's folder below a session's folder; made at the first call."""
    folder = base / "plain_run" / "runs" / "first"
    if not (folder / "COMPLETED").exists():
        data = _make_data(base / "plain_run")
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(f"name: first\n{RECIPE}paths: {data}\n")
        _train(folder, steps=60)
        (folder / "COMPLETED").touch()
    return folder


def _make_data(base: Path) -> dict[str, str]:
    splits = ("train", "test", "train_labelled", "train_captioned")
    texts = f"{base}/shards/train_captioned"
    for arguments in (
        ["example", "digits", f"{base}/raw"],
        *(["build", f"{base}/raw/{split}", f"{base}/shards/{split}"] for split in splits),
        ["tokenize", "train", texts, "--vocab-size", str(VOCAB_SIZE), "--output", f"{base}/tok"],
    ):
        assert ssl_data(arguments) == 0, arguments
    return {"digits": f"{base}/shards", "tokenizer": f"{base}/tok/tokenizer.json"}


def _train(folder: Path, steps: int) -> None:
    torch.manual_seed(0)
    recipe = read_recipe(folder)
    system, fields = build_system(recipe), build_fields(recipe)
    streams = [
        Source(name, spec.path, {field: fields[field] for field in spec.fields}, shuffle=False)
        for name, spec in recipe.data.sources.items()
    ]
    batches = {source.name: list(read_batches(source, 64)) for source in streams}
    optimizer = torch.optim.AdamW(
        [parameter for parameter in system.parameters() if parameter.requires_grad], lr=3e-3
    )
    record_environment(folder, 1)
    with closing(Records(folder, 1)) as records:
        for step in range(1, steps + 1):
            name = list(batches)[step % len(batches)]
            batch = batches[name][step // len(batches) % len(batches[name])]
            answers = system.answers(batch, index=step - 1, progress=step / steps)
            loss = system.loss(answers)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for teacher in system.teachers.values():
                teacher.update(system, Unsharded(), step / steps)
            records.write("train", step, {"loss": loss.item(), f"samples/{name}": len(batch)})
    write_atomically(folder / "recipe.yaml", recipe.to_yaml())
    save_checkpoint(folder, system, steps, recipe.fingerprint())


def save_checkpoint(folder: Path, system: torch.nn.Module, step: int, fingerprint: str) -> None:
    """Write a checkpoint as one rank would."""
    pieces = {}
    for name, parameter in system.named_parameters():
        kind = "master" if parameter.requires_grad else "value"
        pieces[f"{kind}/{name}"] = _piece(parameter)
    pieces |= {f"buffer/{name}": _piece(buffer) for name, buffer in system.named_buffers()}
    writer = Writer(folder / "checkpoints", rank=0, world_size=1, attempt=1)
    writer.save(step, Contents(pieces, {}), {"fingerprint": fingerprint, "done": step})
    assert writer.join() is None


def _piece(tensor: torch.Tensor) -> Piece:
    return Piece(tensor.detach().clone().view(-1), 0, tuple(tensor.shape))
