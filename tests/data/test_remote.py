"""Data sets at an address, on real servers: HTTP, and S3 as moto speaks it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

from ssl_scale.data.decoding import LabelField
from ssl_scale.data.image_field import ImageField
from ssl_scale.data.index import read_dataset
from ssl_scale.data.loader import TrainingStream, ValidationStream, dataloader
from ssl_scale.data.mixture import OneSource
from ssl_scale.data.node_cache import INDEXES, NodeCache
from ssl_scale.data.read_ahead import READ_AHEAD
from ssl_scale.data.remote import folder_address
from ssl_scale.data.retrying import Patience
from ssl_scale.data.source import Source
from ssl_scale.data.step_batches import StepBatches
from ssl_scale.data.workers import steps_with_failure
from ssl_scale.errors import DataError
from tests.data.http_server import Server, serving
from tests.data.shards import digit_samples, write_folder, write_numbers

FIELDS = {"image": ImageField("png", size_px=8, channels=1), "label": LabelField("cls", 10)}
PATIENCE = Patience(attempts=3, stalled_s=20.0, first_wait_s=0.01, longest_wait_s=0.02)
SHARDS = 6


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "digits"
    samples = digit_samples(SHARDS * 10)
    write_folder(folder, [samples[start : start + 10] for start in range(0, SHARDS * 10, 10)])
    return folder


@pytest.fixture
def server(digits: Path, tmp_path: Path) -> Iterator[Server]:
    shutil.copytree(digits, tmp_path / "data")
    with serving(tmp_path / "data") as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return NodeCache(tmp_path / "cache", 10**9, PATIENCE)


def flat(step: StepBatches) -> list[list[object]]:
    return [
        [batch.keys, batch.seeds.tolist(), {name: v.tolist() for name, v in batch.fields.items()}]
        for micro in step.batches
        for batch in micro
    ]


def steps_of(source: Source, num_workers: int, steps: int = 12) -> list[list[list[object]]]:
    mixture = OneSource({source.name: 1.0}, global_batch=8)
    stream = TrainingStream({source.name: source}, mixture, end_step=steps)
    return [flat(step) for step in dataloader(stream, num_workers)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_sees_the_samples_of_the_local_copy_and_brings_each_shard_once(
    num_workers: int, server: Server, digits: Path, cache: NodeCache
) -> None:
    local = Source("digits", digits, FIELDS, seed=1, streams=4)
    remote = Source("digits", server.url, FIELDS, seed=1, streams=4, cache=cache)
    assert remote.fingerprint == local.fingerprint
    expected = steps_of(local, 0)
    assert len(expected) == 12  # more than an epoch
    assert steps_of(remote, num_workers) == expected
    assert server.gets.pop("dataset.json") == 1
    assert server.gets.pop("dataset.index") == 1
    assert server.gets == {f"shard-{number:06d}.tar": 1 for number in range(SHARDS)}


def test_a_run_goes_on_through_a_flaky_network(
    server: Server, digits: Path, cache: NodeCache
) -> None:
    for path in sorted(server.folder.iterdir()):
        server.faults[path.name] = ["503", "truncated"]
    remote = Source("digits", server.url, FIELDS, seed=1, streams=4, cache=cache)
    local = Source("digits", digits, FIELDS, seed=1, streams=4)
    assert steps_of(remote, 0) == steps_of(local, 0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_dead_server_stops_the_run_and_no_sample_takes_another_ones_place(
    num_workers: int, server: Server, cache: NodeCache, tmp_path: Path
) -> None:
    source = Source("digits", server.url, FIELDS, seed=1, streams=4, cache=cache)
    for number in range(SHARDS):
        server.faults[f"shard-{number:06d}.tar"] = ["500"] * 99
    mixture = OneSource({"digits": 1.0}, global_batch=8)
    stream = TrainingStream(
        {"digits": source}, mixture, bad_samples=0.9, quarantine=tmp_path / "quarantine"
    )
    (only,) = steps_with_failure(stream, num_workers)
    assert re.search(
        r"^http://.*/shard-00000\d\.tar: must be readable, but failed 3 times, .* 500, .*; check "
        r"the network and the server, then start again",
        str(only.failure),
    )
    assert not (tmp_path / "quarantine").exists()


def test_a_changed_shard_is_named_where_it_is_read(server: Server, cache: NodeCache) -> None:
    source = Source("digits", server.url, FIELDS, streams=1, cache=cache)
    shard = source.locate(0).shard
    path = server.folder / f"shard-{shard:06d}.tar"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=f"{path.name}: must be readable, but .* index was made fo"):
        source.read(source.locate(0))


def test_a_sample_says_where_it_came_from(server: Server, cache: NodeCache) -> None:
    source = Source("digits", f"{server.url}/", FIELDS, shuffle=False, cache=cache)
    assert source.read(source.locate(11))["__url__"] == f"{server.url}/shard-000001.tar"
    with pytest.raises(DataError, match=f"{server.url}: a data set must be a local folder for th"):
        source.dataset.path(0)


def test_a_data_set_that_was_made_anew_is_opened_anew(server: Server, cache: NodeCache) -> None:
    first = read_dataset(server.url, cache)
    shutil.rmtree(server.folder)
    write_numbers(server.folder, [3, 4])
    second = read_dataset(server.url, cache)
    assert (first.num_samples, second.num_samples) == (SHARDS * 10, 7)
    assert first.shards[0].samples == 10
    assert len(list((cache.folder / INDEXES).iterdir())) == 2


def test_what_is_no_data_set_is_named_by_its_address(server: Server, cache: NodeCache) -> None:
    with pytest.raises(DataError, match=r"/data/x/dataset\.json: must be readable, but failed 1 "):
        read_dataset(f"{server.url}/x", cache)
    (server.folder / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=f"^{server.url}/dataset.json: must be readable JSON"):
        read_dataset(server.url, cache)


def test_a_damaged_index_is_brought_again_and_then_named(server: Server, cache: NodeCache) -> None:
    server.faults["dataset.index"] = ["wrong"]
    assert read_dataset(server.url, cache).num_samples == SHARDS * 10
    shutil.rmtree(cache.folder)
    server.faults["dataset.index"] = ["wrong"] * 9
    with pytest.raises(DataError, match=r"dataset\.index: must be readable, but failed 3 times"):
        read_dataset(server.url, cache)


def test_shards_are_brought_before_they_are_needed(server: Server, cache: NodeCache) -> None:
    source = Source("digits", server.url, FIELDS, shuffle=False, cache=cache)
    source.locate_all(np.arange(4))
    READ_AHEAD.wait()
    assert {name for name in server.gets if name.endswith("tar")} == {
        "shard-000000.tar",
        "shard-000001.tar",
    }
    assert cache.holds(source.dataset.remote_file(1))


def test_reading_ahead_keeps_errors_to_itself(server: Server, cache: NodeCache) -> None:
    source = Source("digits", server.url, FIELDS, shuffle=False, cache=cache)
    server.faults["shard-000001.tar"] = ["500"]
    source.locate_all(np.arange(4))
    READ_AHEAD.wait()
    assert not cache.holds(source.dataset.remote_file(1))
    assert source.read(source.locate(10))["__key__"] == "digit-0010"


def test_a_validation_pass_reads_an_address(server: Server, digits: Path, cache: NodeCache) -> None:
    def passed(data: str | Path) -> list[list[list[object]]]:
        source = Source("held", data, FIELDS, shuffle=False, cache=cache)
        return [flat(step) for step in ValidationStream({"held": source}, 16)]

    assert passed(server.url) == passed(digits)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s3:/bucket/x", "must be PROTOCOL://PLACE"),
        ("s3://", "must be PROTOCOL://PLACE"),
        ("pipe:curl http://x/a.tar", "a command for a shell, which is never run"),
        ("https://me:hunter2@host/x", r"^https://\*\*\*@host/x: .* must not hold a user or a pass"),
        ("https://host/x?token=hunter2", "^https://host/x: .* has a query or a fragment"),
        ("https://host/x#hunter2", "has a query or a fragment"),
        ("zip://a::s3://bucket/x", "this is a chain"),
        ("s3://bucket/{0..9}.tar", "give the address of their folder"),
        ("s3://bucket/a.tar", "give the address of their folder"),
    ],
)
def test_what_is_no_folders_address_is_refused_without_telling_secrets(
    name: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as failure:
        read_dataset(name)
    assert "hunter2" not in str(failure.value)


def test_addresses_have_one_form() -> None:
    assert folder_address("S3://Bucket/x//") == "s3://Bucket/x"
    assert folder_address("hf://datasets/org/name@main/x") == "hf://datasets/org/name@main/x"


def test_an_unknown_protocol_is_refused_at_once(cache: NodeCache) -> None:
    with pytest.raises(DataError, match="failed 1 time, .*nosuch.*; correct the address"):
        read_dataset("nosuch://host/x", cache)


def test_a_back_end_that_is_not_installed_is_named(
    cache: NodeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(DataError, match="failed 1 time, .*gcsfs.*; install what it names"):
        read_dataset("gs://bucket/x", cache)


def test_secrets_of_the_configuration_are_sent_and_never_told(
    server: Server, cache: NodeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = {"client_kwargs": {"headers": {"Authorization": "Bearer hunter2"}}}
    monkeypatch.setitem(fsspec.config.conf, "http", secret)
    server.faults["dataset.json"] = ["500"] * 9
    with pytest.raises(DataError) as failure:
        read_dataset(server.url, cache)
    assert "hunter2" not in str(failure.value)
    assert server.headers[0]["Authorization"] == "Bearer hunter2"


def test_local_data_imports_nothing_for_addresses(digits: Path) -> None:
    code = (
        "import sys; from ssl_scale.data.index import read_dataset, read_shard_index;"
        f"read_shard_index(read_dataset({str(digits)!r}), 0, ['png']);"
        "print([name for name in ('fsspec', 'aiohttp', 's3fs') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def bucket(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The digits on a real S3 server, whose place and keys are in the environment alone."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    nothing = str(tmp_path_factory.mktemp("aws") / "none")
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": nothing,
        "AWS_SHARED_CREDENTIALS_FILE": nothing,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.mkdir("digits-bucket")
        files.put(f"{digits}/", "digits-bucket/train/", recursive=True)
        yield "s3://digits-bucket/train"
    server.stop()


def test_training_from_s3_sees_the_samples_of_the_local_copy(
    bucket: str, digits: Path, cache: NodeCache
) -> None:
    remote = Source("digits", bucket, FIELDS, seed=1, streams=4, cache=cache)
    expected = steps_of(Source("digits", digits, FIELDS, seed=1, streams=4), 0)
    assert steps_of(remote, 2) == expected


def test_s3_tells_missing_and_changed_objects_apart(bucket: str, cache: NodeCache) -> None:
    with pytest.raises(DataError, match="no-such-bucket/x/dataset.json.* failed 1 time"):
        read_dataset("s3://no-such-bucket/x", cache)
    source = Source("digits", bucket, FIELDS, shuffle=False, cache=cache)
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.rm(f"{bucket}/shard-000000.tar")
    with pytest.raises(DataError, match=r"shard-000000\.tar: .* failed 1 time, .*put the file the"):
        source.read(source.locate(0))
    files.pipe(f"{bucket}/shard-000001.tar", b"other bytes")
    with pytest.raises(DataError, match=r"shard-000001\.tar: .* 11 bytes came, but the index was"):
        source.read(source.locate(10))


def test_a_tiny_cache_slows_down_and_changes_nothing(
    server: Server, digits: Path, cache: NodeCache
) -> None:
    largest = max(path.stat().st_size for path in digits.glob("*.tar"))
    tiny = replace(cache, max_bytes=largest)
    remote = Source("digits", server.url, FIELDS, seed=1, streams=4, cache=tiny)
    local = Source("digits", digits, FIELDS, seed=1, streams=4)
    assert steps_of(remote, 2, steps=5) == steps_of(local, 0, steps=5)
