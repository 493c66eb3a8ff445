"""The contestants: ours, the bare decoder, and the loaders of others, each with its own format.

Run as a script by whatever Python has the contestant; see `serve`.
"""

import json
import os
import sys
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import simplejpeg
import torch
from _loader_work import (
    BATCH,
    Collated,
    Decoded,
    check,
    collate,
    collate_rest,
    decode_caption,
    decode_dict,
)

Epochs = Callable[[], Iterator[Collated]]


def _members(folder: Path) -> Iterator[dict[str, bytes]]:
    """The samples of all shards, as bytes by extension."""
    for path in sorted(folder.glob("*.tar")):
        sample: dict[str, bytes] = {}
        with tarfile.open(path) as archive:
            for entry in archive:
                file = archive.extractfile(entry)
                assert file is not None
                sample[entry.name.partition(".")[2]] = file.read()
                if len(sample) == 3:
                    yield sample
                    sample = {}


def ours(
    folder: Path, work: Path, px: int, workers: int, shuffle: bool, checksums: bool = True
) -> Epochs:
    """This project."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from ssl_scale.data.decoding import FieldDecoder, LabelField, pad
    from ssl_scale.data.image_field import ImageField
    from ssl_scale.data.loader import TrainingStream
    from ssl_scale.data.mixture import OneSource
    from ssl_scale.data.source import Source
    from ssl_scale.data.workers import dataloader

    class Caption(FieldDecoder):
        def decode(self, member: bytes, extension: str) -> Any:
            return decode_caption(member)

        def missing(self) -> Any:
            raise NotImplementedError

        def collate(self, values: Any) -> Any:
            return pad(values)

    fields: dict[str, FieldDecoder] = {
        "image": ImageField("jpg", px),
        "caption": Caption("txt"),
        "label": LabelField("cls", 1000),
    }
    source = Source("pictures", folder, fields, window=1024, shuffle=shuffle, checksums=checksums)
    steps, epoch = len(source) // BATCH, 0

    def batches() -> Iterator[Collated]:
        nonlocal epoch
        stream = TrainingStream(
            {"pictures": source},
            OneSource({"pictures": 1}, BATCH),
            start_step=epoch * steps,
            end_step=(epoch + 1) * steps,
        )
        epoch += 1
        for step in dataloader(stream, workers):
            found = step[0][0].fields
            caption = found["caption"]
            yield Collated(found["image"], caption.values, caption.lengths, found["label"])

    return batches


def bare(folder: Path, work: Path, px: int, workers: int, shuffle: bool) -> Epochs:
    """No loader: the files lie in memory, and are decoded into one buffer."""
    samples = list(_members(folder))
    room = np.empty((BATCH, px, px, 3), np.uint8)

    def batches() -> Iterator[Collated]:
        for start in range(0, len(samples), BATCH):
            chunk = samples[start : start + BATCH]
            for place, sample in zip(room, chunk, strict=True):
                simplejpeg.decode_jpeg(sample["jpg"], buffer=place)
            rest = [Decoded(room[0], decode_caption(s["txt"]), int(s["cls"])) for s in chunk]
            yield collate_rest(rest, torch.from_numpy(room))

    return batches


def webdataset(folder: Path, work: Path, px: int, workers: int, shuffle: bool) -> Epochs:
    """Plain webdataset; in its shuffled passes, its buffer."""
    import webdataset as wds

    shards = [str(path) for path in sorted(folder.glob("*.tar"))]
    epoch = 0

    def batches() -> Iterator[Collated]:
        nonlocal epoch
        epoch += 1
        dataset = wds.WebDataset(shards, shardshuffle=len(shards) if shuffle else False, seed=epoch)
        if shuffle:
            dataset = dataset.shuffle(1024)
        dataset = dataset.map(decode_dict).batched(BATCH, collation_fn=collate)
        yield from torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers)

    return batches


def litdata(folder: Path, work: Path, px: int, workers: int, shuffle: bool) -> Epochs:
    """litdata, from its chunks."""
    import litdata as lit
    from litdata.streaming.writer import BinaryWriter

    if not (work / "index.json").exists():
        writer = BinaryWriter(str(work), chunk_bytes=1 << 26)
        for number, sample in enumerate(_members(folder)):
            writer[number] = sample
        writer.done()
        writer.merge()

    class Dataset(lit.StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            sample = super().__getitem__(index)  # views of its chunks
            return decode_dict({name: bytes(member) for name, member in sample.items()})

    def batches() -> Iterator[Collated]:
        dataset = Dataset(str(work), shuffle=shuffle)
        yield from lit.StreamingDataLoader(
            dataset, batch_size=BATCH, num_workers=workers, collate_fn=collate
        )

    return batches


def mosaicml_streaming(folder: Path, work: Path, px: int, workers: int, shuffle: bool) -> Epochs:
    """mosaicml-streaming, from MDS files."""
    # Its import needs names of torchvision that this never uses.
    for name in ("", ".datasets", ".transforms", ".transforms.functional"):
        module = ModuleType(f"torchvision{name}")
        module.__spec__ = ModuleSpec(module.__name__, None)
        module.VisionDataset, module.to_tensor = object, None  # type: ignore[attr-defined]
        sys.modules.setdefault(module.__name__, module)
    from streaming import MDSWriter, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    if not (work / "index.json").exists():
        columns = dict.fromkeys(("jpg", "txt", "cls"), "bytes")
        with MDSWriter(out=str(work), columns=columns) as writer:
            for sample in _members(folder):
                writer.write(sample)
    clean_stale_shared_memory()

    class Dataset(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            return decode_dict(super().__getitem__(index))

    dataset = Dataset(local=str(work), shuffle=shuffle, batch_size=BATCH)

    def batches() -> Iterator[Collated]:
        yield from torch.utils.data.DataLoader(
            dataset, batch_size=BATCH, num_workers=workers, collate_fn=collate
        )

    return batches


def megatron_energon(folder: Path, work: Path, px: int, workers: int, shuffle: bool) -> Epochs:
    """megatron-energon, from the same tars with its own index beside copies of them."""
    import shutil

    from megatron import energon
    from megatron.energon.flavors.webdataset import BaseWebdatasetFactory

    shards = [path.name for path in sorted(folder.glob("*.tar"))]
    if not (work / ".nv-meta" / "dataset.yaml").exists():
        for name in shards:
            shutil.copy(folder / name, work / name)
        BaseWebdatasetFactory.prepare_dataset(
            work, shards, split_parts_ratio=[("train", 1.0)], workers=1, shuffle_seed=None
        )
        (work / ".nv-meta" / "dataset.yaml").write_text(
            "__module__: megatron.energon\n__class__: CrudeWebdataset\nsubflavors: {}\n"
        )

    @energon.stateless
    def cook(sample: dict[str, Any]) -> dict[str, Any]:
        return {**energon.basic_sample_keys(sample), "decoded": decode_dict(sample)}

    class Encoder(energon.TaskEncoder):  # type: ignore[type-arg]
        cookers = (energon.Cooker(cook),)
        decoder = None

        def batch(self, samples: Any) -> Collated:
            return collate([sample["decoded"] for sample in samples])

    def batches() -> Iterator[Collated]:
        config = energon.WorkerConfig(rank=0, world_size=1, num_workers=workers)
        dataset = energon.get_train_dataset(
            work,
            worker_config=config,
            batch_size=BATCH,
            shuffle_buffer_size=1024 if shuffle else None,
            max_samples_per_sequence=None,
            task_encoder=Encoder(),
            repeat=False,
        )
        yield from energon.get_loader(dataset)

    return batches


CONTESTANTS = {
    "ours": ours,
    "bare decoder": bare,
    "webdataset": webdataset,
    "litdata": litdata,
    "mosaicml-streaming": mosaicml_streaming,
    "megatron-energon": megatron_energon,
}
# Compared with its contestant in one process: two differ by some per cent by where they lie in
# memory alone.
VARIANTS = {"ours": {"ours without checksums": partial(ours, checksums=False)}}


def _cpu_s() -> float:
    """Seconds of CPU of this process, its threads, and its workers that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def serve(name: str, folder: str, work: str, px: int, workers: int, shuffle: bool) -> None:
    """Answer each line of standard input, a variant's name, with an epoch: what it took.

    The first one checks what comes; the others count samples, with the clock from the first batch
    on, since training starts its workers once.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-max(1, workers) :])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    Path(work).mkdir(parents=True, exist_ok=True)
    variants = {
        each: make(Path(folder), Path(work), px, workers, shuffle)
        for each, make in {name: CONTESTANTS[name], **VARIANTS.get(name, {})}.items()
    }
    print(json.dumps(check(variants[name]())), file=answers, flush=True)
    for line in sys.stdin:
        cpu_s, seen = _cpu_s(), 0
        started = time.perf_counter()
        for batch in variants[line.strip()]():
            if not seen:
                first = len(batch.label)
                first_s = time.perf_counter() - started
            seen += len(batch.label)
        seconds = time.perf_counter() - started - first_s
        figures = {
            "per_s": (seen - first) / seconds,
            "first_s": first_s,
            "cpu_us": (_cpu_s() - cpu_s) / seen * 1e6,
        }
        print(json.dumps(figures), file=answers, flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6] == "shuffled")
