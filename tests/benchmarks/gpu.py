"""What a GPU does with its time: MAE of a ViT-L/16, and attention over different lengths.

Without a GPU the rows say that they were not run.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ssl_scale.nn.attend import attend
from ssl_scale.nn.packing import Packing
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.system.build import build_system
from ssl_scale.types import Batch
from tests.benchmarks.run import Row

ROUNDS = 7
MEASURES = (
    "MAE pretraining of ViT-L/16, 224 px, bf16",
    "its share of the FLOP/s of a large matmul",
    "attention over different lengths, forward and backward",
)
RECIPE = """\
data:
  global_batch: BATCH
  fields: {image: {type: ImageField, extension: jpg, size_px: SIDE}}
  sources: {images: {data: images, fields: [image], feeds: [mae]}}
views: {image: {type: ImageView, field: image}}
encoders: {image: {type: VisionTransformer, preset: PRESET, patch: 16, size_px: SIDE}}
masks: {patches: {type: RandomMask, view: image, ratio: 0.75}}
objectives:
  mae:
    type: MaskedPixels
    encoder: image
    mask: patches
    decoder: {type: MAEDecoder, hidden: 512, depth: 8, num_heads: 16}
optim: {type: AdamW, lr: {type: WarmupCosine, peak: 1.5e-4}}
train: {steps: 100, precision: bf16}
"""


def rows() -> list[Row]:
    """Measure, if there is a GPU."""
    if not torch.cuda.is_available():
        return [_row(measure, None, "not run: no GPU here") for measure in MEASURES]
    device = torch.device("cuda")
    return [*mae(device), attention(device)]


def _row(
    measure: str,
    value: float | None,
    unit: str,
    against: str | None = None,
    ratio: float | None = None,
) -> Row:
    return {
        "measure": measure, "value": value, "unit": unit, "against": against,
        "ratio": ratio, "goal": None, "met": None,
    }  # fmt: skip


def mae(
    device: torch.device,
    preset: str = "large",
    side_px: int = 224,
    batch_size: int = 256,
    matmul: int = 8192,
) -> list[Row]:
    """Images a second of whole steps, and the share of what the device's matrix units can do.

    FLOPs are those that torch counts in one forward and backward pass: nothing is recomputed.
    """
    train_step = _mae_step(device, preset, side_px, batch_size)
    train_step()  # the optimizer makes its state
    with FlopCounterMode(display=False) as counter:
        train_step()
    product = torch.randn(2, matmul, matmul, device=device, dtype=torch.bfloat16)
    pairs = [
        (_seconds(train_step, device), _seconds(lambda: product[0] @ product[1], device))
        for _ in range(ROUNDS)
    ]
    step_s = statistics.median(step for step, _ in pairs)
    peak = 2 * matmul**3 / statistics.median(product_s for _, product_s in pairs)
    share = counter.get_total_flops() / step_s / peak
    against = f"{matmul} x {matmul} bf16 matmul, {peak / 1e12:.0f} TFLOP/s"
    return [
        _row(MEASURES[0], round(batch_size / step_s), "images/s"),
        _row(MEASURES[1], round(100 * share, 1), "%", against, round(share, 3)),
    ]


def _mae_step(
    device: torch.device, preset: str, side_px: int, batch_size: int
) -> Callable[[], None]:
    settings = {"PRESET": preset, "SIDE": str(side_px), "BATCH": str(batch_size)}
    text = RECIPE
    for name, value in settings.items():
        text = text.replace(name, value)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mae.yaml"
        path.write_text(text)
        recipe = read_recipe(path, [], {"images": folder})
    system = build_system(recipe, dtype=torch.bfloat16).to(device, torch.bfloat16)
    optimizer = torch.optim.AdamW(system.parameters(), lr=1e-6, fused=True)
    pixels = torch.randint(0, 256, (batch_size, 3, side_px, side_px), dtype=torch.uint8)
    keys = tuple(map(str, range(batch_size)))
    batch = Batch("images", {"image": pixels}, torch.arange(batch_size), keys).to(device)

    def train_step() -> None:
        optimizer.zero_grad()
        system.loss(system.answers(batch)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return train_step


def attention(
    device: torch.device, sequences: int = 256, longest: int = 512, heads: int = 16
) -> Row:
    """Packed sequences of 32 tokens to the longest, against SDPA of all of them padded."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(32, longest + 1, (sequences,), generator=generator)
    lengths[0] = longest
    valid = (torch.arange(longest) < lengths[:, None]).to(device)
    packing = Packing.of(valid)
    padded = torch.randn(3, sequences, longest, heads, 64, device=device, dtype=torch.bfloat16)
    packed = torch.stack([packing.pack(x) for x in padded])
    packed.requires_grad_()
    padded.requires_grad_()

    def ours() -> Tensor:
        return attend(packed[0], packed[1], packed[2], packing)

    def theirs() -> Tensor:
        query, key, value = (x.transpose(1, 2) for x in padded)
        return F.scaled_dot_product_attention(query, key, value, valid[:, None, None])

    _same(ours(), packing.pack(theirs().transpose(1, 2)))
    pairs = [
        (_seconds(lambda: _back(ours()), device), _seconds(lambda: _back(theirs()), device))
        for _ in range(ROUNDS)
    ]
    return _row(
        MEASURES[2],
        round(1000 * statistics.median(mine for mine, _ in pairs), 2),
        "ms",
        "padded SDPA with a mask",
        round(statistics.median(mine / other for mine, other in pairs), 3),
    )


def _back(out: Tensor) -> None:
    out.sum().backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def _same(one: Tensor, other: Tensor) -> None:
    apart = float((one - other).abs().max())
    if apart > 0.05:
        raise RuntimeError(f"both attentions must agree, but differ by {apart:g}")


def _seconds(work: Callable[[], Any], device: torch.device, repeats: int = 5) -> float:
    work()
    _wait(device)
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    _wait(device)
    return (time.perf_counter() - began) / repeats


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
