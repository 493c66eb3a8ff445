"""Recordings of different lengths, packed into rows: attention stays within each of them."""

import json
import zipfile
from pathlib import Path

import torch
from ssl_scale_data_tools.cli import main
from torch import Tensor, nn

from ssl_scale.data.audio_field import AudioField
from ssl_scale.data.lengths import Lengths
from ssl_scale.data.loader import TrainingStream
from ssl_scale.data.mixture import OneSource
from ssl_scale.data.source import Source
from ssl_scale.data.split import Budget
from ssl_scale.nn.packing import Packing
from ssl_scale.nn.trunk import Trunk
from ssl_scale.types import Packed
from tests.data.shards import write_folder

RATE_HZ, FRAME, MOST_S = 8000, 80, 0.8
BUDGET = 20_000


class Listener(nn.Module):
    """Frames of ten milliseconds through a trunk."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.trunk = nn.Linear(FRAME, 32), Trunk(32, 2, 4)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        out, _ = self.trunk(self.stem(frames), packing=Packing.row(lengths, len(frames)))
        return out


def framed(packed: Packed) -> tuple[Tensor, Tensor]:
    """The whole frames of each recording, laid end to end, and how many each has."""
    sounds = packed.values[: int(packed.lengths.sum()), 0].split(packed.lengths.tolist())
    frames = [sound[: len(sound) // FRAME * FRAME].view(-1, FRAME) for sound in sounds]
    return torch.cat(frames), torch.tensor([len(each) for each in frames])


@torch.no_grad()
def test_packed_recordings_are_heard_like_each_alone(test_data: Path, tmp_path: Path) -> None:
    rows = (test_data / "fsdd/metadata.jsonl").read_text().splitlines()[::12][:40]
    with zipfile.ZipFile(test_data / "fsdd/recordings.zip") as archive:
        files = [json.loads(row)["file"] for row in rows]
        samples = [(f"digit-{n:02d}", {"wav": archive.read(f)}) for n, f in enumerate(files)]
    write_folder(tmp_path, [samples[:15], samples[15:]])
    command = ["lengths", str(tmp_path), "--extension", "wav", "--sample-rate-hz", str(RATE_HZ)]
    assert main([*command, "--workers", "0"]) == 0

    field = AudioField("wav", RATE_HZ, max_s=MOST_S)
    source = Source("digits", tmp_path, {"sound": field}, streams=2, window=8)
    budget = Budget(BUDGET, {"digits": Lengths(source, "sound")}, frozenset({"digits"}))
    stream = TrainingStream(
        {"digits": source}, OneSource({"digits": 1}, len(samples)), end_step=1, budget=budget
    )
    [step] = stream
    assert len(step) > 3 and step.tokens / step.places > 0.8
    listener, keys = Listener(), []
    for [batch] in step:
        packed = batch.fields["sound"]
        assert isinstance(packed, Packed) and len(packed.values) <= BUDGET
        frames, lengths = framed(packed)
        together = listener(frames, lengths).split(lengths.tolist())
        for sound, heard in zip(frames.split(lengths.tolist()), together, strict=True):
            alone = listener(sound, torch.tensor([len(sound)]))
            torch.testing.assert_close(heard, alone, rtol=0, atol=2e-6)
        assert len(lengths) > 1 and not torch.allclose(
            listener(frames, lengths.sum()[None])[: lengths[0]], together[0], atol=1e-3
        ), "attention over the whole row would hear something else"
        keys += batch.keys
    assert sorted(keys) == [key for key, _ in samples], "each recording once"
