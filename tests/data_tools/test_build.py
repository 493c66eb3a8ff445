"""Raw files become the same shards, byte for byte, whatever happens on the way."""

import gc
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Generator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset as wds
from PIL import Image
from ssl_scale_data_tools.build import BuildOptions, ShardSize, build, plan_shards, split_samples
from ssl_scale_data_tools.cli import main
from ssl_scale_data_tools.executors import LocalExecutor
from ssl_scale_data_tools.manifest import digest
from ssl_scale_data_tools.raw import RawMember, RawSample
from ssl_scale_data_tools.raw_folder import list_folder
from ssl_scale_data_tools.work import Stage, Task, TaskResult

from ssl_scale.data.index import read_dataset, read_shard_index
from ssl_scale.errors import DataError
from tests.data.shards import index_shard

NUM_SAMPLES = 30


def make_raw(folder: Path, number: int = NUM_SAMPLES) -> Path:
    """Images of several sizes with captions, some labels, in two folders."""
    for i in range(number):
        place = folder / ("even" if i % 2 == 0 else "odd")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4 + i, 5), i).save(place / f"{i}.png")
        (place / f"{i}.txt").write_text(f"an image {4 + i} wide, ä")
        if i % 3 == 0:
            (place / f"{i}.cls").write_text(f"{i % 10}\n")
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_raw(tmp_path / "raw")


def final_bytes(folder: Path) -> dict[str, bytes]:
    """All that a build leaves for readers."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def read_tar(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {entry.name: read_member(tar, entry) for entry in tar}


def read_member(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(entry)
    assert file is not None
    return file.read()


def run(*arguments: object) -> int:
    """Run the command, in this process unless told."""
    workers = () if "--workers" in arguments else ("--workers", "0")
    return main([str(argument) for argument in (*arguments, *workers)])


@pytest.fixture
def reference(raw: Path, tmp_path: Path) -> dict[str, bytes]:
    folder = tmp_path / "reference" / "set"
    assert run("build", raw, folder, "--shard-size", 4, "--workers", 0) == 0
    return final_bytes(folder)


def test_a_build_keeps_bytes_and_says_where_they_are(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert run("build", raw, out, "--shard-size", 7) == 0
    dataset = read_dataset(out)
    assert dataset.name == "set" and dataset.num_samples == NUM_SAMPLES
    assert dataset.fields == {"cls": 10, "png": 30, "txt": 30}
    assert [shard.samples for shard in dataset.shards] == [7, 7, 7, 7, 2]
    keys = set()
    for number in range(len(dataset.shards)):
        content = dataset.path(number).read_bytes()
        index = read_shard_index(dataset, number, ["png", "txt", "cls"])
        for row, key in enumerate(index.keys):
            keys.add(key)
            for extension in ("png", "txt", "cls"):
                source = raw / f"{key}.{extension}"
                present = extension in index.lengths and index.lengths[extension][row] >= 0
                assert source.exists() == present
                if present:
                    start, length = index.offsets[extension][row], index.lengths[extension][row]
                    assert content[start : start + length] == source.read_bytes()
    assert keys == {f"{'odd' if i % 2 else 'even'}/{i}" for i in range(NUM_SAMPLES)}


def test_the_index_is_the_one_that_reading_the_tar_gives(raw: Path, tmp_path: Path) -> None:
    long = raw / ("d" * 120) / ("e" * 120)
    long.mkdir(parents=True)
    (long / f"{'f' * 90}.txt").write_text("a name too long for one header")
    out = tmp_path / "set"
    assert run("build", raw, out, "--shard-size", 100) == 0
    dataset = read_dataset(out)
    written = read_shard_index(dataset, 0, ["png", "txt", "cls"])
    found = index_shard(dataset.path(0))
    assert list(written.keys) == list(found.keys)
    for extension in ("png", "txt", "cls"):
        assert (written.offsets[extension] == found.offsets[extension]).all()
        assert (written.lengths[extension] == found.lengths[extension]).all()


# webdataset leaves closing its archives to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_shards(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert run("build", raw, out, "--shard-size", 10) == 0
    urls = [str(path) for path in sorted(out.glob("*.tar"))]
    samples = list(wds.WebDataset(urls, shardshuffle=False))
    gc.collect()
    assert len(samples) == NUM_SAMPLES
    for sample in samples:
        assert sample["png"] == (raw / f"{sample['__key__']}.png").read_bytes()
        assert sample["txt"] == (raw / f"{sample['__key__']}.txt").read_bytes()


def test_tar_headers_hold_no_time_owner_or_host(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert run("build", raw, out) == 0
    with tarfile.open(out / "shard-000000.tar") as tar:
        for entry in tar:
            assert (entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname, entry.mode) == (
                (0, 0, 0, "", "", 0o644)
            )


def test_the_manifest_has_a_row_a_sample_in_the_order_of_the_shards(
    raw: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    assert run("build", raw, out, "--shard-size", 7) == 0
    dataset = read_dataset(out)
    rows = pq.read_table(out / "manifest.parquet").to_pylist()
    order = [
        (shard.name, key)
        for number, shard in enumerate(dataset.shards)
        for key in read_shard_index(dataset, number, []).keys
    ]
    assert [(row["shard"], row["key"]) for row in rows] == order
    for row in rows:
        i = int(row["key"].rpartition("/")[2])
        members = {
            extension: path.read_bytes()
            for extension in ("png", "txt", "cls")
            if (path := raw / f"{row['key']}.{extension}").exists()
        }
        assert row["sha256"] == digest(members)
        assert row["bytes"] == sum(map(len, members.values()))
        assert (row["width"], row["height"]) == (4 + i, 5)
        assert row["label"] == (i % 10 if i % 3 == 0 else None)
        assert row["text_chars"] == len(members["txt"].decode())


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_bytes_are_the_same_for_any_number_of_workers(
    raw: Path, tmp_path: Path, reference: dict[str, bytes], workers: int
) -> None:
    assert run("build", raw, tmp_path / "set", "--shard-size", 4, "--workers", workers) == 0
    assert final_bytes(tmp_path / "set") == reference


def test_bytes_do_not_depend_on_times_or_on_where_the_input_lies(
    raw: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    moved = make_raw(tmp_path / "elsewhere" / "raw")
    for path in moved.rglob("*.*"):
        os.utime(path, (1, 1))
    assert run("build", moved, tmp_path / "set", "--shard-size", 4) == 0
    assert final_bytes(tmp_path / "set") == reference


class StopAfter:
    """An executor whose process is lost after some tasks."""

    def __init__(self, number: int) -> None:
        self.number = number

    def run(
        self, stage: Stage, tasks: Sequence[Task], workers: int
    ) -> Generator[TaskResult, None, None]:
        yield from islice(LocalExecutor().run(stage, tasks, 0), self.number)
        raise KeyboardInterrupt


@pytest.mark.parametrize("stop", range(9))
def test_a_stop_after_any_task_costs_no_finished_task(
    raw: Path, tmp_path: Path, reference: dict[str, bytes], stop: int
) -> None:
    out = tmp_path / "set"
    options = BuildOptions("set", ShardSize(samples=4))
    tasks = plan_shards(list_folder(raw.resolve()).samples, raw.resolve(), options)
    assert len(tasks) == 8
    ran: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        build(tasks, out, [], options, StopAfter(stop), 0, lambda *_: None, lambda _: None)
    assert not (out / "dataset.json").exists()
    build(tasks, out, [], options, LocalExecutor(), 0, lambda task, _: ran.append(task.name), str)
    assert ran == [task.name for task in tasks[stop:]]
    assert final_bytes(out) == reference


@pytest.fixture(scope="module")
def many(module_path: Path) -> tuple[Path, dict[str, bytes]]:
    """Raw files, and the bytes of a build that makes a shard of each sample."""
    raw = make_raw(module_path / "raw", 40)
    assert run("build", raw, module_path / "set", "--shard-size", 1, "--workers", 0) == 0
    return raw, final_bytes(module_path / "set")


@pytest.mark.parametrize("finished", [0, 1, 15])
def test_a_killed_build_goes_on_and_ends_in_the_same_bytes(
    many: tuple[Path, dict[str, bytes]], tmp_path: Path, finished: int
) -> None:
    raw, expected = many
    out = tmp_path / "set"
    command = [sys.executable, "-m", "ssl_scale_data_tools.cli", "build", str(raw), str(out)]
    driver = subprocess.Popen(
        [*command, "--shard-size", "1", "--workers", "2"], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while len(list((out / ".work").glob("build/*.json"))) < finished or not out.exists():
        assert time.monotonic() < deadline and driver.poll() is None
        time.sleep(0.001)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    for name, content in final_bytes(out).items():
        assert content == expected[name], f"{name} was left half-written"
    assert "dataset.json" not in final_bytes(out)
    assert run("build", raw, out, "--shard-size", 1, "--workers", 2) == 0
    assert final_bytes(out) == expected


def test_a_finished_build_is_left_alone_and_another_refused(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    assert run("build", raw, out, "--shard-size", 10) == 0
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert run("build", raw, out, "--shard-size", 10) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.tar")} == before
    assert "3 of 3 tasks were done before" in capsys.readouterr().err
    assert run("build", raw, out, "--shard-size", 20) == 2
    assert "holds a data set that was built from other input" in capsys.readouterr().err
    assert (out / "dataset.json").exists()
    assert run("build", raw, out, "--shard-size", 20, "--overwrite") == 0
    assert sorted(path.name for path in out.glob("shard-*.tar")) == [
        "shard-000000.tar",
        "shard-000001.tar",
    ]
    fresh = tmp_path / "fresh" / "set"
    assert run("build", raw, fresh, "--shard-size", 20) == 0
    assert final_bytes(out) == final_bytes(fresh)


def test_an_interrupted_build_takes_up_a_changed_input(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    options = BuildOptions("set", ShardSize(samples=4))
    tasks = plan_shards(list_folder(raw.resolve()).samples, raw.resolve(), options)
    with pytest.raises(KeyboardInterrupt):
        build(tasks, out, [], options, StopAfter(8), 0, lambda *_: None, lambda _: None)
    (raw / "even" / "0.txt").write_text("another caption")
    for i in range(10, NUM_SAMPLES):
        for path in (raw / ("odd" if i % 2 else "even")).glob(f"{i}.*"):
            path.unlink()
    assert run("build", raw, out, "--shard-size", 4) == 0
    fresh = tmp_path / "fresh" / "set"
    assert run("build", raw, fresh, "--shard-size", 4) == 0
    assert final_bytes(out) == final_bytes(fresh)


def test_a_table_gives_files_and_texts(raw: Path, tmp_path: Path) -> None:
    rows = [
        {"path": "even/0.png", "caption": "nothing", "digit": 0, "id": "a"},
        {"path": "odd/1.png", "caption": 'line\nbreak, "quoted"', "digit": None, "id": "b/c"},
    ]
    table = tmp_path / "table.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "set"
    columns = ("--file-column", "path", "--text-column", "caption", "--text-column", "digit=cls")
    keys = ("--key-column", "id", "--order", "listed")
    assert run("build", raw, out, "--table", table, *columns, *keys) == 0
    assert read_tar(out / "shard-000000.tar") == {
        "a.cls": b"0",
        "a.png": (raw / "even/0.png").read_bytes(),
        "a.txt": b"nothing",
        "b/c.png": (raw / "odd/1.png").read_bytes(),
        "b/c.txt": b'line\nbreak, "quoted"',
    }


def test_a_csv_beside_its_files_gives_keys_by_row(raw: Path, tmp_path: Path) -> None:
    (raw / "t.csv").write_text('file,text\neven/0.png,"a, b"\nodd/1.png,c\n', "utf-8-sig")
    out = tmp_path / "set"
    columns = ("--file-column", "file", "--text-column", "text", "--order", "listed")
    assert run("build", raw / "t.csv", out, *columns) == 0
    members = read_tar(out / "shard-000000.tar")
    texts = {name: content for name, content in members.items() if name.endswith(".txt")}
    assert texts == {"000000001.txt": b"a, b", "000000002.txt": b"c"}


def test_shards_are_cut_by_bytes(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert run("build", raw, out, "--shard-size", "20kB") == 0
    shards = read_dataset(out).shards
    assert len(shards) > 1
    # The end of an archive is filled up to a whole record.
    assert all(shard.bytes <= 20_000 + tarfile.RECORDSIZE for shard in shards)


def test_shuffled_shards_hold_a_bit_of_everything(raw: Path, tmp_path: Path) -> None:
    assert run("build", raw, tmp_path / "set", "--shard-size", 10) == 0
    assert run("build", raw, tmp_path / "listed", "--shard-size", 10, "--order", "listed") == 0

    def folders(name: str) -> list[set[str]]:
        dataset = read_dataset(tmp_path / name)
        keys = [read_shard_index(dataset, number, []).keys for number in range(3)]
        return [{key.partition("/")[0] for key in shard} for shard in keys]

    assert folders("set") == [{"even", "odd"}] * 3
    assert folders("listed") == [{"even"}, {"even", "odd"}, {"odd"}]


def test_a_key_stays_in_its_split_when_data_is_added() -> None:
    member = (RawMember("txt", 1, text="x"),)
    samples = [RawSample(f"{i}", member) for i in range(2000)]
    fractions = {"train": 0.8, "test": 0.2}
    few, many = (split_samples(part, fractions) for part in (samples[:1000], samples))
    assert set(few["test"]) <= set(many["test"]) and set(few["train"]) <= set(many["train"])
    assert len(many["train"]) + len(many["test"]) == 2000
    assert 340 < len(many["test"]) < 460
    with pytest.raises(DataError, match="add up to 1, but add up to 0.9"):
        split_samples(samples, {"train": 0.8, "test": 0.1})


def test_splits_become_data_sets_of_their_own(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert run("build", raw, out, "--split", "train=0.7", "--split", "test=0.3") == 0
    train, test = read_dataset(out / "train"), read_dataset(out / "test")
    assert train.num_samples + test.num_samples == NUM_SAMPLES
    assert min(train.num_samples, test.num_samples) > 3


def test_a_dry_run_writes_nothing(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    assert run("build", raw, out, "--shard-size", 4, "--dry-run") == 0
    assert "would write 30 samples" in capsys.readouterr().out
    assert not out.exists()


def test_file_names_with_dots_and_capitals_are_read_as_webdataset_does(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    files: Mapping[str, str] = {"a.seg.TXT": "x", "a.txt": "y", ".hidden": "z", "b.1.txt": "w"}
    for name, text in files.items():
        (raw / name).write_text(text)
    assert run("build", raw, tmp_path / "set") == 0
    assert read_dataset(tmp_path / "set").fields == {"1.txt": 1, "seg.txt": 1, "txt": 1}
