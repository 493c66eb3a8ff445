"""The loader against webdataset and others, on the same files, with the same decoders.

Samples are crops of two photographs (JPEG), a caption and a class, in plain tars; who reads tars
reads these, the others convert them first (the time is not counted). Each contestant is a process
of its own that stays, pinned to as many CPUs as it has workers, and to one without workers. Passes
go in turn, and a ratio is the median of the rounds' ratios, since the machine may be busy. CPU time
is shown too, so that a hidden thread counts. Ours compares every member with its checksum, as it
does by default; what that costs is a row of its own.

Peers are taken from the Python that SSL_SCALE_PEERS_PYTHON names; those that it lacks are left out.
To make one:

    python3 -m venv peers && peers/bin/pip install -r tests/benchmarks/peers.txt
    SSL_SCALE_PEERS_PYTHON=peers/bin/python make bench AREA=loader

SSL_SCALE_BENCH_ROUNDS (6) and SSL_SCALE_BENCH_SAMPLES (8192, a quarter at 224 px) make it longer or
shorter.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from ssl_scale.data.decoding import LabelField
from ssl_scale.data.loader import TrainingStream
from ssl_scale.data.mixture import OneSource
from ssl_scale.data.source import Source
from tests.benchmarks.run import Row
from tests.data.shards import write_folder

_SCRIPT = Path(__file__).with_name("_loader_contestants.py")
_PEERS = ("litdata", "mosaicml-streaming", "megatron-energon")
_PEERS_PYTHON = os.environ.get("SSL_SCALE_PEERS_PYTHON", sys.executable)
_ROUNDS = int(os.environ.get("SSL_SCALE_BENCH_ROUNDS", "6"))
_SAMPLES = int(os.environ.get("SSL_SCALE_BENCH_SAMPLES", "8192"))
_SHARDS = 8
_CONVERTING_S = 600.0


class _Setting(NamedTuple):
    """One table: what all contestants are asked to do, and the ratios that ours must reach."""

    px: int
    workers: int
    order: str
    webdataset: float | None = None
    peers: float | None = None
    bare: float | None = None
    unchecked: float | None = None

    def __str__(self) -> str:
        return f"{self.px} px, {self.workers} workers, {self.order}"


_SETTINGS = (
    _Setting(64, 0, "as stored", 3.0, 1.0, unchecked=0.95),
    _Setting(64, 2, "as stored", 2.0, 1.0),
    _Setting(224, 0, "as stored", 1.25, 1.0, bare=0.95, unchecked=0.95),
    _Setting(224, 2, "as stored", 1.2, 1.0),
    _Setting(64, 0, "shuffled"),
    _Setting(64, 2, "shuffled"),
)


def _write(folder: Path, px: int, samples: int) -> None:
    """Crops of photographs of about `px` x 1.9 a side, as cameras' pictures shrunk to `px`."""
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    draw = np.random.default_rng(0)
    made = []
    for number in range(samples):
        photograph = photographs[number % 2]
        side = int(draw.integers(px, min(3 * px, photograph.height)))
        left = int(draw.integers(0, photograph.width - side + 1))
        top = int(draw.integers(0, photograph.height - side + 1))
        file = io.BytesIO()
        crop = photograph.crop((left, top, left + side, top + side)).resize((px, px))
        crop.save(file, "jpeg", quality=85)
        caption = f"{('a temple', 'a flower')[number % 2]}, {side} px at {left}, {top}"
        members = {"cls": f"{number % 1000}", "txt": caption}
        made.append(
            (
                f"{number:06d}",
                {"jpg": file.getvalue(), **{name: text.encode() for name, text in members.items()}},
            )
        )
    size = samples // _SHARDS
    write_folder(folder, [made[n * size : (n + 1) * size] for n in range(_SHARDS)])


class _Contestant:
    """A process that makes a pass when it is told to.

    Args:
        name: which one.
        folder: of the tars.
        work: folder for its own format.
        setting: what to do.
    """

    def __init__(self, name: str, folder: Path, work: Path, setting: _Setting) -> None:
        self.name = name
        python = _PEERS_PYTHON if name in _PEERS else sys.executable
        command = [python, str(_SCRIPT), name, str(folder), str(work / name)]
        work.mkdir(exist_ok=True)
        self._said = work / f"{name}.txt"
        # Some say more than fits into a pipe that nobody reads.
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                [*command, str(setting.px), str(setting.workers), setting.order],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
            )

    def answer(self) -> Any:
        """The next line it writes; None where it failed."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def run(self, variant: str) -> Any:
        """One pass of a variant."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{variant}\n")
        self._process.stdin.flush()
        return self.answer()

    def why(self) -> str:
        """The last line of what a failed one said."""
        self._process.communicate()
        return (self._said.read_text().strip().splitlines() or ["no message"])[-1]

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def _contest(folder: Path, work: Path, setting: _Setting) -> dict[str, list[Mapping[str, float]]]:
    """Passes of all contestants that can be had, in rounds."""
    names = ["ours", "webdataset", *_PEERS]
    if setting.bare is not None:
        names.insert(1, "bare decoder")
    with ExitStack() as stack:
        ready, sums = [], None
        for name in names:
            contestant = _Contestant(name, folder, work, setting)
            stack.callback(contestant.close)
            found = contestant.answer()
            if found is None:
                print(f"{setting}: {name} is left out: {contestant.why()}", file=sys.stderr)
                continue
            sums = sums or found
            if found != sums:
                raise RuntimeError(f"{setting}: {name} must bring {sums}, but brings {found}")
            ready.append(contestant)
        runners = [(each, each.name) for each in ready]
        if setting.unchecked is not None:
            runners.insert(1, (ready[0], "ours without checksums"))
        passes: dict[str, list[Mapping[str, float]]] = {variant: [] for _, variant in runners}
        for turn in range(_ROUNDS):
            order = runners[turn % len(runners) :] + runners[: turn % len(runners)]
            # To and fro: who comes after one that reads the same files finds them in the cache.
            for each, variant in order[:: -1 if turn % 2 else 1]:
                passes[variant].append(each.run(variant))
    return passes


def _rows(setting: _Setting, passes: Mapping[str, list[Mapping[str, float]]]) -> list[Row]:
    goals = {
        "webdataset": setting.webdataset,
        "bare decoder": setting.bare,
        "ours without checksums": setting.unchecked,
    }
    rows: list[Row] = []
    for name, own in passes.items():
        against = "ours" if name != "ours" else "webdataset"
        ratios = [
            ours["per_s"] / other["per_s"]
            for ours, other in zip(passes["ours"], passes[name], strict=True)
        ]
        goal = goals.get(name, setting.peers) if name != "ours" else None
        ratio = statistics.median(ratios)
        cpu_us = statistics.median(each["cpu_us"] for each in own)
        rows.append(
            {
                "measure": f"{setting}: {name}",
                "value": round(statistics.median(each["per_s"] for each in own)),
                "unit": f"samples/s, {cpu_us:.0f} us of CPU each",
                "against": None if name == "ours" else f"{against} has so many times as much",
                "ratio": None if name == "ours" else round(ratio, 2),
                "goal": goal and f"at least {goal:g}",
                "met": None if goal is None else ratio >= goal,
            }
        )
    return rows


def _resume(folder: Path) -> Row:
    """The time to the first batch, from step 0 and from far on."""

    def first(step: int) -> float:
        started = time.perf_counter()
        source = Source("pictures", folder, {"label": LabelField("cls", 1000)})
        stream = TrainingStream({"pictures": source}, OneSource({"pictures": 1}, 64))
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
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for px, samples in ((64, _SAMPLES), (224, _SAMPLES // 4)):
            data, work = Path(folder) / f"{px}px", Path(folder) / f"{px}px-converted"
            _write(data, px, samples)
            for setting in _SETTINGS:
                if setting.px == px:
                    found += _rows(setting, _contest(data, work, setting))
        found.append(_resume(Path(folder) / "64px"))
    return found
