"""Shards that others made become data sets, and are only read."""

import io
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset as wds
from ssl_scale_data_tools.cli import main

from ssl_scale.data.index import read_dataset, read_shard_index
from ssl_scale.data.samples import index_shard


def run(*arguments: object) -> int:
    """Run the command, in this process unless told."""
    workers = () if "--workers" in arguments else ("--workers", "0")
    return main([str(argument) for argument in (*arguments, *workers)])


def write_shards(folder: Path, number: int = 3) -> Path:
    """Shards as webdataset writes them."""
    folder.mkdir(parents=True)
    for shard in range(number):
        with wds.TarWriter(str(folder / f"part-{shard}.tar")) as writer:
            for row in range(5):
                sample = {"__key__": f"{shard}/{row}", "txt": f"text {row}", "cls": row}
                writer.write(sample)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("workers", [0, 2])
def test_foreign_shards_are_read_by_their_index(tmp_path: Path, workers: int) -> None:
    folder = write_shards(tmp_path / "foreign")
    before = files_of(folder)
    assert run("index", folder, "--workers", workers, "--check", "header") == 0
    after = files_of(folder)
    assert {name: after[name] for name in before} == before
    dataset = read_dataset(folder)
    assert dataset.name == "foreign" and dataset.fields == {"cls": 15, "txt": 15}
    index = read_shard_index(dataset, 1, ["txt"])
    content = dataset.path(1).read_bytes()
    texts = [
        content[start : start + length]
        for start, length in zip(index.offsets["txt"], index.lengths["txt"], strict=True)
    ]
    assert texts == [f"text {row}".encode() for row in range(5)]
    manifest = pq.read_table(folder / "manifest.parquet").to_pylist()
    assert [row["label"] for row in manifest] == [0, 1, 2, 3, 4] * 3
    assert [row["shard"] for row in manifest] == [f"part-{i // 5}.tar" for i in range(15)]


def test_a_second_run_does_nothing_and_a_new_shard_is_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_shards(tmp_path / "foreign")
    assert run("index", folder) == 0
    first = files_of(folder)
    assert run("index", folder) == 0
    assert files_of(folder) == first
    assert "3 of 3 tasks were done before" in capsys.readouterr().err
    write_shards(tmp_path / "more", 4)
    (tmp_path / "more" / "part-3.tar").rename(folder / "part-3.tar")
    assert run("index", folder) == 0
    assert "3 of 4 tasks were done before" in capsys.readouterr().err
    assert read_dataset(folder).num_samples == 20


def test_all_damaged_shards_are_counted_and_the_first_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_shards(tmp_path / "foreign", 4)
    for number in (1, 2):
        path = folder / f"part-{number}.tar"
        path.write_bytes(path.read_bytes()[:2000])
    assert run("index", folder) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and "cut off" in line and "and 1 more like it" in line
    assert not (folder / "dataset.json").exists()
    assert (folder / ".work" / "index" / "part-3.index").exists()


def test_a_bad_sample_is_left_out_of_the_index(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_shards(tmp_path / "foreign", 1)
    with tarfile.open(folder / "bad.tar", "w") as tar:
        for name, content in (("./a.txt", b"fine"), ("b.txt", b"\xff"), ("../c.txt", b"fine")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    assert run("index", folder, "--check", "header") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "bad.tar: sample 'b': .txt must be UTF-8" in line
    assert run("index", folder, "--check", "header", "--on-bad", "skip") == 0
    dataset = read_dataset(folder)
    assert list(read_shard_index(dataset, 0, []).keys) == ["./a"]
    rejected = (folder / "rejected.jsonl").read_text()
    assert "must be UTF-8" in rejected and "has '..'" in rejected
    assert len(index_shard(folder / "bad.tar")) == 3


@pytest.mark.parametrize(
    ("name", "reason"), [("x.tar.gz", "x.tar.gz, which must be unpacked first"), ("x", "none")]
)
def test_a_folder_without_shards_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, reason: str
) -> None:
    (tmp_path / name).touch()
    assert run("index", tmp_path) == 2
    assert reason in capsys.readouterr().err
