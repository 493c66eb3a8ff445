"""Batches of unlike samples: any resolution, length, number of channels or points, or nothing."""

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from ssl_scale.data.array_field import ArrayField
from ssl_scale.data.audio_field import AudioField
from ssl_scale.data.decoding import FieldDecoder, NumberField
from ssl_scale.data.loader import TrainingStream, dataloader
from ssl_scale.data.mixture import OneSource
from ssl_scale.data.ragged_image_field import RaggedImageField
from ssl_scale.data.source import Source
from ssl_scale.data.video_field import VideoField
from ssl_scale.types import Batch, Ragged
from tests.data.shards import Sample, png, write_folder

SAMPLES = 24


def fields() -> dict[str, FieldDecoder]:
    return {
        "image": RaggedImageField("png", max_px=32),
        "sound": AudioField("wav", 8_000, max_s=1, channels=None),
        "film": VideoField("mp4", num_frames=2, size_px=8),
        "points": ArrayField("npz", [-1, 3], entry="points"),
        "scan": ArrayField("npz", [-1, -1], entry="scan", most=[8, 64]),
        "score": NumberField("json", entry="about.score"),
    }


def sample(number: int) -> Sample:
    """Every field lacks in some samples."""
    rng = np.random.default_rng(number)
    height, width, channels, steps, points = rng.integers(1, [40, 20, 4, 60, 9])
    wav, npz = io.BytesIO(), io.BytesIO()
    soundfile.write(wav, rng.uniform(-1, 1, (steps, channels)), 8_000, format="WAV")
    np.savez(npz, points=rng.normal(size=(points, 3)), scan=rng.normal(size=(channels, steps)))
    about = {"about": {"score": None if number % 4 == 0 else number}}
    members = {
        "png": png(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)),
        "wav": wav.getvalue(),
        "npz": npz.getvalue(),
        "json": json.dumps(about).encode(),
        "mp4": film(number),
    }
    for place, name in enumerate(("png", "wav", "npz", "mp4")):
        if number % 6 == place:
            del members[name]
    return members


def film(number: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 32, "yuv420p"
        for _ in range(1 + number % 3):
            grey = np.full((16, 32, 3), 5 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unlike") / "set"
    samples = [(f"{number:03d}", sample(number)) for number in range(SAMPLES)]
    write_folder(folder, [samples[:10], samples[10:]])
    return folder


def batches(folder: Path, workers: int) -> list[Batch]:
    source = Source("unlike", folder, fields(), seed=1, streams=2, window=8)
    mixture = OneSource({"unlike": 1}, global_batch=6)
    stream = TrainingStream({"unlike": source}, mixture, end_step=SAMPLES // 6)
    return [step.batches[0][0] for step in dataloader(stream, num_workers=workers)]


def row(value: Tensor | Ragged, number: int) -> Tensor:
    """A sample's own part of a field."""
    if isinstance(value, Tensor):
        return value[number]
    sizes = value.lengths[number].reshape(-1).tolist()
    return value.values[number][tuple(map(slice, sizes))]


def alone(decoder: FieldDecoder, members: Sample) -> np.ndarray | float | None:
    """A field of a sample that is in no batch."""
    extension = decoder.extensions[0]
    return decoder.decode(members[extension], extension) if extension in members else None


@pytest.mark.parametrize("workers", [0, 2])
def test_each_sample_of_a_batch_is_what_it_is_alone(folder: Path, workers: int) -> None:
    decoders, seen = fields(), set()
    for batch in batches(folder, workers):
        for number, key in enumerate(batch.keys):
            seen.add(key)
            for name, decoder in decoders.items():
                found, value = batch.fields[name], alone(decoder, sample(int(key)))
                expected = torch.as_tensor(decoder.missing() if value is None else value)
                own = row(found, number)
                assert torch.equal(own.nan_to_num(-1), expected.to(own.dtype).nan_to_num(-1))
                if isinstance(found, Ragged):
                    assert bool(found.lengths[number].any()) == (value is not None)
                    assert not found.values[number][~found.valid[number]].any()
                else:
                    present = batch.fields.get(f"{name}.present", torch.ones(6))
                    assert isinstance(present, Tensor)
                    assert bool(present[number]) == (value is not None)
    assert len(seen) == SAMPLES
