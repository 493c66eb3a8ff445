"""A few real pictures, captioned pictures and texts as shards, for every role that recipes name."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers

from tests.data.shards import Sample, write_folder

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SPLITS = {"train": 24, "test": 12}


def write_roles(test_data: Path, folder: Path) -> dict[str, str]:
    """Write shards and a tokenizer; returns the path of every role."""
    for split, count in SPLITS.items():
        _write(folder / "images" / split, _labelled(test_data / "cifar10", split, count))
        _write(folder / "pairs" / split, _captioned(test_data / "emoji", split, count))
        _write(folder / "texts" / split, _texts(test_data / "ag_news", split, count))
    words = {
        word
        for role in ("pairs", "texts")
        for split in SPLITS
        for word in (folder / role / f"{split}.words").read_text().split()
    }
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {role: str(folder / role) for role in ("images", "pairs", "texts")}
    return {**roles, "tokenizer": str(folder / "tokenizer.json")}


def _write(folder: Path, samples: Sequence[Sample]) -> None:
    keyed = [(f"sample-{number:04d}", sample) for number, sample in enumerate(samples)]
    middle = len(keyed) // 2
    write_folder(folder, [keyed[:middle], keyed[middle:]])
    texts = (sample.get("txt", b"").decode() for sample in samples)
    folder.with_name(f"{folder.name}.words").write_text("\n".join(texts))


def _rows(folder: Path, split: str) -> Iterator[Mapping[str, Any]]:
    with (folder / "metadata.jsonl").open() as lines:
        yield from (row for row in map(json.loads, lines) if row["split"] == split)


def _labelled(folder: Path, split: str, count: int) -> list[Sample]:
    """As many pictures of every class."""
    found: dict[int, list[Sample]] = {}
    with zipfile.ZipFile(folder / "images.zip") as archive:
        for row in _rows(folder, split):
            same = found.setdefault(row["label_id"], [])
            if len(same) < -(-count // 10):
                label = str(row["label_id"]).encode()
                same.append({"jpg": archive.read(row["file"]), "cls": label})
    return [sample for same in found.values() for sample in same]


def _captioned(folder: Path, split: str, count: int) -> list[Sample]:
    with zipfile.ZipFile(folder / "images.zip") as archive:
        return [
            {"png": archive.read(row["file"]), "txt": row["name"].encode()}
            for _, row in zip(range(count), _rows(folder, split), strict=False)
        ]


def _texts(folder: Path, split: str, count: int) -> list[Sample]:
    return [
        {"txt": row["text"].encode(), "cls": str(row["label_id"]).encode()}
        for _, row in zip(range(count), _rows(folder, split), strict=False)
    ]
