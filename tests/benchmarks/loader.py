"""The loader against plain webdataset, on the same shards, with the same decoders.

Both shuffle, decode with our fields and collate to tensors; an epoch a round, rounds alternate, and
the ratio is the median of the rounds' ratios, since the machine may be busy. "fields left as bytes"
shows what the loaders themselves cost.
"""

import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from ssl_scale.data.decoding import FieldDecoder, LabelField
from ssl_scale.data.image_field import ImageField
from ssl_scale.data.loader import TrainingStream
from ssl_scale.data.mixture import OneSource
from ssl_scale.data.source import Source
from ssl_scale.data.workers import dataloader
from ssl_scale.types import Ragged
from tests.benchmarks.run import Row
from tests.data.shards import write_folder

_SHARDS, _PER_SHARD, _BATCH, _ROUNDS = 4, 512, 64, 4
_SAMPLES = _SHARDS * _PER_SHARD
# The loader's own cost is what differs; where Pillow decodes, most of the time is Pillow's.
_GOAL_BYTES, _GOAL_DECODED = 2.0, 1.2


class _Bytes(FieldDecoder):
    """A member as it is; only its length becomes a number."""

    def decode(self, member: bytes, extension: str) -> int:
        return len(member)

    def missing(self) -> int:
        return 0

    def collate(self, values: Sequence[int]) -> Tensor | Ragged:
        return torch.tensor(values)


def _write(folder: Path) -> None:
    """Digits as JPEG files of 64 px, with labels."""
    digits = load_digits()
    samples = []
    for number in range(_SAMPLES):
        pixels = (digits.images[number % len(digits.images)] * 15.9).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).resize((64, 64)).convert("RGB").save(file, "jpeg")
        label = str(digits.target[number % len(digits.images)]).encode()
        samples.append((f"{number:06d}", {"jpg": file.getvalue(), "cls": label}))
    write_folder(folder, [samples[n::_SHARDS] for n in range(_SHARDS)])


def _ours(folder: Path, fields: dict[str, FieldDecoder], workers: int, epoch: int) -> int:
    source = Source("digits", folder, fields, window=1024)
    steps = _SAMPLES // _BATCH
    stream = TrainingStream(
        {"digits": source},
        OneSource({"digits": 1}, _BATCH),
        start_step=epoch * steps,
        end_step=(epoch + 1) * steps,
    )
    return sum(len(step[0][0]) for step in dataloader(stream, workers))


def _plain(folder: Path, fields: dict[str, FieldDecoder], workers: int, epoch: int) -> int:
    def decode(sample: dict[str, Any]) -> list[Any]:
        return [
            decoder.decode(sample[decoder.extensions[0]], decoder.extensions[0])
            for decoder in fields.values()
        ]

    def collate(samples: list[list[Any]]) -> list[Any]:
        columns = zip(*samples, strict=True)
        return [
            decoder.collate(column)
            for decoder, column in zip(fields.values(), columns, strict=True)
        ]

    shards = sorted(str(path) for path in folder.glob("*.tar"))
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=_SHARDS, seed=epoch)
        .shuffle(1024)
        .map(decode)
        .batched(_BATCH, collation_fn=collate)
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers)
    return sum(len(batch[0]) for batch in loader)


def _rate(load: Callable[..., int], *arguments: Any) -> float:
    started = time.perf_counter()
    seen = load(*arguments)
    if seen != _SAMPLES:
        raise RuntimeError(f"an epoch must have {_SAMPLES} samples, but had {seen}")
    return seen / (time.perf_counter() - started)


def _against_webdataset(
    folder: Path, what: str, fields: dict[str, FieldDecoder], workers: int, goal: float | None
) -> Row:
    pairs = [
        (_rate(_ours, folder, fields, workers, n), _rate(_plain, folder, fields, workers, n))
        for n in range(_ROUNDS)
    ][1:]  # the first round warms the caches
    ratio = statistics.median(ours / plain for ours, plain in pairs)
    return {
        "measure": f"shuffled epoch, {what}, {workers} workers",
        "value": round(statistics.median(ours for ours, _ in pairs)),
        "unit": "samples/s",
        "against": "webdataset",
        "ratio": round(ratio, 2),
        "goal": goal and f"at least {goal:g} x webdataset",
        "met": None if goal is None else ratio >= goal,
    }


def _resume(folder: Path) -> Row:
    """The time to the first batch, from step 0 and from far on."""

    def first(step: int) -> float:
        started = time.perf_counter()
        source = Source("digits", folder, {"label": LabelField("cls", 10)})
        stream = TrainingStream({"digits": source}, OneSource({"digits": 1}, _BATCH))
        stream.make(step)
        return time.perf_counter() - started

    pairs = [(first(10**12), first(0)) for _ in range(9)]
    ratio = statistics.median(far / near for far, near in pairs)
    return {
        "measure": "open and make the first batch, resuming after 10^12 steps",
        "value": round(1000 * statistics.median(far for far, _ in pairs), 1),
        "unit": "ms",
        "against": "starting at step 0",
        "ratio": round(ratio, 2),
        "goal": "at most 1.5 x starting",
        "met": ratio <= 1.5,
    }


def rows() -> list[Row]:
    """Measure."""
    decoded: dict[str, FieldDecoder] = {
        "image": ImageField("jpg", size_px=64),
        "label": LabelField("cls", 10),
    }
    left: dict[str, FieldDecoder] = {"image": _Bytes("jpg"), "label": _Bytes("cls")}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # webdataset's own
        path = Path(folder) / "digits"
        _write(path)
        return [
            _against_webdataset(path, "64 px JPEG decoded", decoded, 0, _GOAL_DECODED),
            _against_webdataset(path, "64 px JPEG decoded", decoded, 2, None),
            _against_webdataset(path, "fields left as bytes", left, 0, _GOAL_BYTES),
            _resume(path),
        ]
