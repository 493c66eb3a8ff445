"""Shards that others made become data sets, and are only read."""

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset as wds
from ssl_scale_data_tools.cli import main

from ssl_scale.data.index import read_dataset, read_shard_index
from tests.data.shards import index_shard


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


def test_a_folder_without_shards_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.zip").touch()
    assert run("index", tmp_path) == 2
    assert (
        "must hold shards (.tar or one of .tar.gz, .tgz, .tar.zst), but" in capsys.readouterr().err
    )


def test_blocks_of_unchanged_shards_are_kept_and_changed_ones_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_shards(tmp_path / "foreign")
    assert run("index", folder) == 0
    parts = {n: folder / ".work" / "index" / f"part-{n}.index" for n in range(3)}
    before = {n: path.stat().st_mtime_ns for n, path in parts.items()}
    write_shards(tmp_path / "other", 4)
    (tmp_path / "other" / "part-3.tar").rename(folder / "part-1.tar")
    capsys.readouterr()
    assert run("index", folder) == 0
    told = capsys.readouterr().err
    assert "changed since they were indexed, and indexed again: part-1.tar\n" in told
    assert [n for n, path in parts.items() if path.stat().st_mtime_ns != before[n]] == [1]
    dataset = read_dataset(folder)
    keys = [read_shard_index(dataset, n, []).keys[0] for n in range(3)]
    assert keys == ["0/0", "3/0", "2/0"]


def test_verify_names_the_shards_that_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_shards(tmp_path / "foreign", 4)
    assert run("index", folder) == 0
    assert main(["verify", str(folder)]) == 0
    assert "4 shards" in (told := capsys.readouterr().out) and "all as indexed" in told
    content = bytearray((folder / "part-2.tar").read_bytes())
    content[512] ^= 1
    (folder / "part-2.tar").write_bytes(content)
    assert main(["verify", str(folder), "--threads", "2"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "1 of 4 shards must be as they were indexed" in line
    assert "part-2.tar has other bytes of the same number; restore" in line


PACKERS = {
    ".tar.gz": ["gzip", "--stdout"],
    ".tgz": ["gzip", "--stdout", "--fast"],
    ".tar.zst": ["zstd", "--stdout", "--quiet"],
}


def pack(path: Path, suffix: str, parts: int = 1) -> Path:
    """Compress an archive with the program that people use; in parts, as parallel ones do."""
    program = shutil.which(PACKERS[suffix][0])
    if program is None:
        pytest.skip(f"needs the program {PACKERS[suffix][0]}")
    whole = path.read_bytes()
    cuts = [len(whole) * n // parts for n in range(parts + 1)]
    packed = path.with_name(path.name.removesuffix(".tar") + suffix)
    with packed.open("wb") as file:
        for start, end in pairwise(cuts):
            command = [program, *PACKERS[suffix][1:]]
            done = subprocess.run(command, input=whole[start:end], stdout=file, check=True)
            assert done.returncode == 0
    path.unlink()
    return packed


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("suffix", PACKERS)
def test_compressed_shards_are_unpacked_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, parts: int
) -> None:
    folder = write_shards(tmp_path / "foreign", 2)
    plain = (folder / "part-1.tar").read_bytes()
    packed = pack(folder / "part-1.tar", suffix, parts)
    assert run("index", folder) == 0
    assert (folder / "part-1.tar").read_bytes() == plain
    dataset = read_dataset(folder)
    assert [shard.name for shard in dataset.shards] == ["part-0.tar", "part-1.tar"]
    assert list(read_shard_index(dataset, 1, []).keys) == [f"1/{row}" for row in range(5)]
    before = files_of(folder)
    capsys.readouterr()
    assert run("index", folder) == 0
    assert "2 of 2 tasks were done before" in capsys.readouterr().err
    assert files_of(folder) == before
    (folder / "part-1.tar").unlink()  # lost: made again from what it was packed into
    assert run("index", folder) == 0
    assert files_of(folder) == before
    packed.unlink()  # no longer needed: what came out of it is a shard like any other
    assert run("index", folder) == 0
    assert read_dataset(folder).num_samples == 10


def test_two_shards_of_one_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_shards(tmp_path / "foreign", 1)
    plain = (folder / "part-0.tar").read_bytes()
    pack(folder / "part-0.tar", ".tar.gz")
    (folder / "part-0.tar").write_bytes(plain)
    assert run("index", folder) == 2
    assert "part-0.tar.gz and part-0.tar would both be part-0.tar" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst"])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: content[: len(content) // 2], "does not unpack"),
        (lambda content: b"no archive at all" + content, "does not unpack"),
        (lambda content: content[:40] + bytes(20) + content[60:], "part-0"),
    ],
)
def test_a_damaged_compressed_shard_names_itself(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
    spoil: Callable[[bytes], bytes],
    reason: str,
) -> None:
    folder = write_shards(tmp_path / "foreign", 1)
    packed = pack(folder / "part-0.tar", suffix)
    packed.write_bytes(spoil(packed.read_bytes()))
    assert run("index", folder) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"error: {packed}: " in line and reason in line
    assert not (folder / "part-0.tar").exists() and not (folder / "dataset.json").exists()


def test_an_archive_that_is_no_tar_inside_names_what_was_packed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tar").write_bytes(b"text" * 1000)
    packed = pack(tmp_path / "a.tar", ".tar.gz")
    assert run("index", tmp_path) == 2
    assert f"error: {packed}: byte 0 must start a tar header" in capsys.readouterr().err


def test_what_unpacks_to_a_thousand_times_its_size_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(1 << 24))
    pack(tmp_path / "a.tar", ".tar.zst")
    assert run("index", tmp_path) == 2
    assert "must unpack to at most 1000 times its size" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs the program tar")
def test_members_that_play_tricks_are_set_aside_with_their_reason(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "in").mkdir(parents=True)
    for name in ("in/a.txt", "in/b.txt", "c.txt", "d.txt", "f.txt"):
        (raw / name).write_text(name)
    (raw / "in" / "b.cls").symlink_to("/etc/passwd")
    os.link(raw / "d.txt", raw / "e.txt")
    names = ["in/a.txt", "in/b.cls", "in/b.txt", "../raw/c.txt", f"{raw}/f.txt", "d.txt", "e.txt"]
    folder = tmp_path / "set"
    folder.mkdir()
    command = ["tar", "--absolute-names", "--create", "--file", str(folder / "x.tar"), *names]
    subprocess.run(command, cwd=raw, check=True)
    with tarfile.open(folder / "x.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("in/a.txt"))
    assert run("index", folder) == 2
    assert run("index", folder, "--on-bad", "skip") == 0
    dataset = read_dataset(folder)
    assert list(read_shard_index(dataset, 0, []).keys) == ["in/a", "in/b", "d"]
    assert dataset.fields == {"txt": 3}
    lines = map(json.loads, (folder / "rejected.jsonl").read_text().splitlines())
    reasons = {line["key"]: line["reason"] for line in lines}
    assert "'in/b.cls' is a link to '/etc/passwd'" in reasons["in/b"]
    assert "'e.txt' is a link to 'd.txt'" in reasons["e"]
    assert "comes after another sample began" in reasons["in/a"]
    assert "has '..'" in reasons["../raw/c"]
    assert "is absolute" in reasons[f"{raw}/f"]
    assert {path.name for path in folder.iterdir()} == {
        ".work", "x.tar", "manifest.parquet", "rejected.jsonl", "dataset.index", "dataset.json"
    }  # fmt: skip
