"""From SIGTERM to an end with everything saved, and from a start to the first step after it.

A model of 100 M parameters on two ranks, ZeRO-2, as ``ssl-launch local`` runs it: the first figure
includes the step that was under way, the second starting Python and reading the checkpoint.
"""

import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks._demo import PROGRAMS, command
from tests.benchmarks.run import Row

ROUNDS = 3
PATIENCE_S = 300.0
STOPPED = 75
RECIPE = """\
data:
  global_batch: 16
  num_workers: 0
  streams: 2
  fields: {image: {type: ImageField, extension: png, size_px: 8, channels: 1}}
  sources: {bare: {data: digits, fields: [image], feeds: [mae]}}
views: {image: {type: ImageView, field: image}}
encoders:
  image:
    {type: VisionTransformer, width: 768, depth: 14, num_heads: 12, patch: 2, size_px: 8,
     channels: 1}
masks: {patches: {type: RandomMask, view: image, ratio: 0.5}}
objectives:
  mae:
    type: MaskedPixels
    encoder: image
    mask: patches
    decoder: {type: MAEDecoder, hidden: 64, depth: 1, num_heads: 4}
optim: {type: AdamW, lr: {type: WarmupCosine, peak: 1.0e-4}, clip: 1.0}
train: {steps: 100000, zero: 2, save_every: 100000, keep_last: 1, log_every: 1}
"""


def rows() -> list[Row]:
    """Start, stop, and start again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command("ssl-data", "example", "digits", "raw", folder=folder)
        command("ssl-data", "build", "raw/test", "shards", "--workers=0", folder=folder)
        (folder / "hundred.yaml").write_text(RECIPE)
        ends, starts = [], []
        for number in range(ROUNDS + 1):
            began = time.monotonic()
            with running(folder) as run:
                before = steps_done(folder)
                wait_for_steps(folder, before + 1, run)
                if number:
                    starts.append(time.monotonic() - began)
                wait_for_steps(folder, before + 3, run)
                asked = time.monotonic()
                run.send_signal(signal.SIGTERM)
                if (code := run.wait(PATIENCE_S)) != STOPPED:
                    raise RuntimeError(f"the run must end with {STOPPED}, but ended with {code}")
                ends.append(time.monotonic() - asked)
            command("ssl-scale", "checkpoint", "verify", "run", folder=folder)
        size_mb = sum(f.stat().st_size for f in (folder / "run").rglob("*.safetensors")) / 1e6
    model = f"100 M parameters, 2 ranks, ZeRO-2, {size_mb:.0f} MB saved"
    return [
        _row(f"from SIGTERM to the end, all saved: {model}", ends, 30.0),
        _row(f"from the command to the first step after a resume: {model}", starts, 20.0),
    ]


def _row(measure: str, seconds: list[float], limit_s: float) -> Row:
    value = statistics.median(seconds)
    return {
        "measure": measure,
        "value": round(value, 1),
        "unit": "s",
        "against": None,
        "ratio": None,
        "goal": f"under {limit_s:g} s",
        "met": value < limit_s,
    }


@contextmanager
def running(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The run; it is ended at the latest when the block is left."""
    with (folder / "output.txt").open("ab") as output:
        run = subprocess.Popen(
            [
                str(PROGRAMS / "ssl-launch"), "local", "--processes=2", "hundred.yaml",
                "--data=digits=shards", "--run-folder=run",
            ],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
        )  # fmt: skip
        try:
            yield run
        finally:
            if run.poll() is None:
                run.kill()
                run.wait()


def steps_done(folder: Path) -> int:
    """The last step that the run told of."""
    path = folder / "run/metrics.jsonl"
    if not path.exists():
        return 0
    lines = (json.loads(line) for line in path.read_bytes().split(b"\n")[:-1])
    return max((line["step"] for line in lines if "step" in line), default=0)


def wait_for_steps(folder: Path, step: int, run: "subprocess.Popen[bytes]") -> None:
    """Wait until the run is so far.

    Raises:
        RuntimeError: it ended, or takes too long.
    """
    deadline = time.monotonic() + PATIENCE_S
    while steps_done(folder) < step:
        if run.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError((folder / "output.txt").read_text()[-3000:])
        time.sleep(0.02)
