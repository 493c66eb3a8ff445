"""The data of the small recipes as shards, made with ``ssl-data`` from the test data's files."""

import json
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MIN_PER_BLOCK = 60  # emoji of rarer Unicode blocks have no label: probes need some of every class
SPLITS = ("train", "test")

Row = dict[str, Any]


def make_shards(test_data: Path, folder: Path) -> dict[str, dict[str, str]]:
    """Write shards and tokenizers where there are none yet.

    Returns:
        The paths of all roles, by data set.
    """
    _make(test_data / "cifar10", folder / "cifar10", "--file-column=file", "--text-column=cls=cls")
    pairs = ("--file-column=file", "--text-column=name", "--text-column=cls=cls")
    _make(test_data / "emoji", folder / "emoji", *pairs, tokens=1000)
    topics = ("--text-column=text", "--text-column=cls=cls")
    _make(test_data / "ag_news", folder / "ag_news", *topics, tokens=4000)
    return {
        "cifar10": {"images": str(folder / "cifar10")},
        "emoji": {
            "pairs": str(folder / "emoji"),
            "images": str(folder / "emoji"),
            "tokenizer": str(folder / "emoji" / "tokenizer" / "tokenizer.json"),
        },
        "ag_news": {
            "texts": str(folder / "ag_news"),
            "tokenizer": str(folder / "ag_news" / "tokenizer" / "tokenizer.json"),
        },
    }


def _make(source: Path, folder: Path, *columns: str, tokens: int = 0) -> None:
    if (folder / "MADE").exists():
        return
    raw = folder / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    if (source / "images.zip").exists():
        with zipfile.ZipFile(source / "images.zip") as archive:
            archive.extractall(raw)
    with (source / "metadata.jsonl").open() as lines:
        rows = _with_classes([json.loads(line) for line in lines])
    for split in SPLITS:
        table = raw / f"{split}.jsonl"
        table.write_text("".join(_line(row) for row in rows if row["split"] == split))
        options = [f"--table={table}", *columns, "--workers=0", "--overwrite"]
        _ssl_data("build", str(raw), str(folder / split), *options)
    if tokens:
        output = str(folder / "tokenizer")
        size = f"--vocab-size={tokens}"
        _ssl_data("tokenize", "train", str(folder / "train"), size, f"--output={output}")
    (folder / "MADE").touch()


def _with_classes(rows: Iterable[Row]) -> list[Row]:
    """Rows with a class number ``cls``: their own, or that of a label that many share."""
    rows = list(rows)
    if all("label_id" in row for row in rows):
        return [{**row, "cls": row["label_id"]} for row in rows]
    counts = Counter(row["label"] for row in rows if row["split"] == "train")
    classes = sorted(label for label, count in counts.items() if count >= MIN_PER_BLOCK)
    numbers = {label: number for number, label in enumerate(classes)}
    return [
        {**row, "cls": numbers[row["label"]]} if row["label"] in numbers else row for row in rows
    ]


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _ssl_data(*arguments: str) -> None:
    subprocess.run([str(Path(sys.executable).parent / "ssl-data"), *arguments], check=True)
