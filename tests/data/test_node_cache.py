"""The node's cache, against a real HTTP server that fails as it is told, from several processes."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xxhash

from ssl_scale.data.file_lock import locked
from ssl_scale.data.node_cache import SHARDS, NodeCache, default_folder
from ssl_scale.data.reader import ShardReader
from ssl_scale.data.remote import RemoteFile
from ssl_scale.data.retrying import Patience
from ssl_scale.errors import DataError
from tests.data.http_server import FAULTS, Server, serving

SIZE = 40_000
PATIENCE = Patience(attempts=4, stalled_s=20.0, first_wait_s=0.01, longest_wait_s=0.02)
# Processes of a node, forked from one that has done the imports.
CLIENT = """
import os, random, resource, sys
from pathlib import Path
import fsspec.implementations.http
import xxhash
from ssl_scale.data.node_cache import NodeCache
from ssl_scale.data.remote import RemoteFile
from ssl_scale.data.retrying import Patience
from ssl_scale.errors import DataError

folder, limit, processes, turns, largest, *files = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), -1))
cache = NodeCache(Path(folder), int(limit), Patience(4, 20.0, 0.01, 0.02))
files = [RemoteFile(url, name, int(size), xxh3) for url, name, size, xxh3 in
         (file.split(",") for file in files)]
children = []
for process in range(int(processes) - 1):
    children.append(os.fork())
    if children[-1] == 0:
        children = []
        break
draw = random.Random(os.getpid())
for turn in range(int(turns)):
    file = draw.choice(files)
    try:
        descriptor = cache.open(file)
    except DataError as error:
        sys.exit(str(error))
    content = b"".join(os.pread(descriptor, 1000, at) for at in range(0, file.bytes, 1000))
    os.close(descriptor)
    if xxhash.xxh3_128_hexdigest(content) != file.xxh3:
        sys.exit("wrong bytes")
sys.exit(max([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], default=0))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "data").mkdir()
    with serving(tmp_path / "data") as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return NodeCache(tmp_path / "cache", 10**9, PATIENCE)


def publish(server: Server, name: str, size: int = SIZE, seed: int = 0) -> RemoteFile:
    content = np.random.default_rng([seed, len(name), *name.encode()]).bytes(size)
    (server.folder / name).write_bytes(content)
    return RemoteFile(server.url, name, size, xxhash.xxh3_128_hexdigest(content))


def read(cache: NodeCache, file: RemoteFile) -> bytes:
    descriptor = cache.open(file)
    try:
        return os.pread(descriptor, file.bytes + 1, 0)
    finally:
        os.close(descriptor)


def published(file: RemoteFile, server: Server) -> bytes:
    return (server.folder / file.name).read_bytes()


def start_client(
    cache: NodeCache, *files: RemoteFile, processes: int = 1, turns: int = 1, largest: int = -1
) -> subprocess.Popen[str]:
    described = [f"{file.folder},{file.name},{file.bytes},{file.xxh3}" for file in files]
    numbers = map(str, (cache.max_bytes, processes, turns, largest))
    command = [sys.executable, "-c", CLIENT, str(cache.folder), *numbers, *described]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def ended(client: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = client.communicate(timeout=60)
    return client.returncode, errors.strip()


def parts(cache: NodeCache) -> list[Path]:
    return list((cache.folder / SHARDS).glob("*.part"))


def whole(cache: NodeCache) -> list[Path]:
    return [path for path in (cache.folder / SHARDS).iterdir() if "." not in path.name]


def test_eight_processes_that_want_one_shard_bring_it_once(
    server: Server, cache: NodeCache
) -> None:
    file = publish(server, "a.tar")
    server.chunk_wait_s = 0.05
    assert ended(start_client(cache, file, processes=8)) == (0, "")
    assert server.gets == {"a.tar": 1}


def test_when_who_brings_a_shard_is_killed_another_one_does(
    server: Server, cache: NodeCache
) -> None:
    file = publish(server, "a.tar")
    server.chunk_wait_s = 0.3
    first = start_client(cache, file)
    while not any(part.stat().st_size for part in parts(cache)):
        assert first.poll() is None
        time.sleep(0.01)
    second = start_client(cache, file)  # waits at the lock
    time.sleep(0.5)
    assert server.gets == {"a.tar": 1}
    first.send_signal(signal.SIGKILL)
    server.chunk_wait_s = 0
    assert ended(first)[0] == -signal.SIGKILL
    assert ended(second) == (0, "")
    assert server.gets == {"a.tar": 2}
    assert parts(cache) == []
    assert [path.stat().st_size for path in whole(cache)] == [SIZE]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_once_is_tried_again(fault: str, server: Server, cache: NodeCache) -> None:
    file = publish(server, "a.tar")
    server.faults["a.tar"] = [fault]
    if fault == "stall":
        cache = replace(cache, patience=replace(PATIENCE, stalled_s=1.5))
    assert read(cache, file) == published(file, server)
    assert server.gets == {"a.tar": 2}
    assert parts(cache) == []


def test_slow_is_not_stalled(server: Server, cache: NodeCache) -> None:
    file = publish(server, "a.tar")
    cache = replace(cache, patience=replace(PATIENCE, stalled_s=1.5))
    server.chunk_wait_s = 0.2  # longer in all than a stall may take
    assert read(cache, file) == published(file, server)
    assert server.gets == {"a.tar": 1}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("503", "503"),
        ("truncated", "ClientPayloadError"),
        ("wrong", "xxh3 .* but the index was made for .*; put back the file that was indexed"),
        ("longer", f"{SIZE + 4} bytes came, but the index was made for {SIZE}; put back the file"),
    ],
)
def test_what_keeps_failing_stops_with_one_clear_line(
    fault: str, reason: str, server: Server, cache: NodeCache
) -> None:
    file = publish(server, "a.tar")
    server.faults["a.tar"] = [fault] * 9
    with pytest.raises(DataError, match=reason) as failure:
        cache.open(file)
    message = str(failure.value)
    assert message.startswith(f"{server.url}/a.tar: must be readable, but failed 4 times, last ")
    assert "\n" not in message
    assert server.gets == {"a.tar": 4}
    assert parts(cache) == whole(cache) == []


@pytest.mark.parametrize(
    ("fault", "advice"),
    [("404", "correct the address"), ("403", "give credentials"), ("401", "give credentials")],
)
def test_what_waiting_does_not_mend_is_not_tried_again(
    fault: str, advice: str, server: Server, cache: NodeCache
) -> None:
    file = publish(server, "a.tar")
    server.faults["a.tar"] = [fault] * 9
    with pytest.raises(DataError, match=f"failed 1 time, .*; {advice}"):
        cache.open(file)
    assert server.gets == {"a.tar": 1}


def test_no_server_at_all(tmp_path: Path, cache: NodeCache) -> None:
    with serving(tmp_path) as server:
        file = RemoteFile(server.url, "a.tar", 1, "0")
    with pytest.raises(DataError, match="failed 4 times, last with ClientConnectorError.* network"):
        cache.open(file)


def test_what_was_used_longest_ago_makes_room(server: Server, cache: NodeCache) -> None:
    cache = replace(cache, max_bytes=3 * SIZE)
    files = [publish(server, f"{number}.tar") for number in range(4)]
    for file in files[:3]:
        os.close(cache.open(file))
        time.sleep(0.02)
    os.close(cache.open(files[0]))  # now 1 is the one unused for longest
    os.close(cache.open(files[3]))
    assert [cache.holds(file) for file in files] == [True, False, True, True]
    locks = [path for path in (cache.folder / SHARDS).glob("*.lock") if path.name[0] != "."]
    assert {lock.stem for lock in locks} == {path.name for path in whole(cache)}


def test_readers_under_a_tiny_limit_see_whole_shards_and_the_limit_holds(
    server: Server, cache: NodeCache
) -> None:
    cache = replace(cache, max_bytes=2 * SIZE + 10)
    files = [publish(server, f"{number}.tar") for number in range(5)]
    client = start_client(cache, *files, processes=4, turns=12)
    most = 0
    while client.poll() is None:
        if (cache.folder / SHARDS).exists():
            most = max(most, disk_use(cache))
        time.sleep(0.001)
    assert ended(client) == (0, "")
    assert SIZE < most <= cache.max_bytes
    assert sum(server.gets.values()) > 5
    assert parts(cache) == []


def disk_use(cache: NodeCache) -> int:
    used = 0
    for path in (cache.folder / SHARDS).iterdir():
        try:
            used += path.stat().st_size
        except FileNotFoundError:  # renamed or removed meanwhile
            return 0
    return used


def test_what_a_reader_has_open_may_be_removed_and_is_given_back(
    server: Server, cache: NodeCache
) -> None:
    cache = replace(cache, max_bytes=SIZE)
    first, second = publish(server, "1.tar"), publish(server, "2.tar")
    reader = ShardReader()

    def start_of(file: RemoteFile) -> bytes:
        return reader.read(file.address, file.bytes, file.xxh3, 0, 9, cache)

    expected = published(first, server)[:9]
    assert start_of(first) == expected
    before = len(os.listdir("/proc/self/fd"))
    os.close(cache.open(second))
    assert not cache.holds(first)
    assert start_of(first) == expected
    assert server.gets["1.tar"] == 1
    assert start_of(second) == published(second, server)[:9]
    assert len(os.listdir("/proc/self/fd")) == before
    reader.close()


def test_reading_on_tells_that_a_shard_is_in_use(
    server: Server, cache: NodeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, reader = publish(server, "a.tar"), ShardReader()
    reader.read(file.address, file.bytes, file.xxh3, 0, 9, cache)
    (path,) = whole(cache)
    os.utime(path, (1, 1))
    reader.read(file.address, file.bytes, file.xxh3, 0, 9, cache)
    assert path.stat().st_mtime == 1
    monkeypatch.setattr("ssl_scale.data.reader._TOUCH_S", 0.0)
    reader.read(file.address, file.bytes, file.xxh3, 0, 9, cache)
    assert path.stat().st_mtime > 1
    reader.close()


def test_a_cache_smaller_than_a_shard_is_refused(server: Server, cache: NodeCache) -> None:
    with pytest.raises(DataError, match=r"may take 9 bytes .* 40000; raise data\.cache\.max_bytes"):
        replace(cache, max_bytes=9).open(publish(server, "a.tar"))
    assert server.gets == {}


def test_a_full_disk_gives_up_what_is_cached_and_then_says_so(
    server: Server, cache: NodeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = publish(server, "1.tar"), publish(server, "2.tar")
    os.close(cache.open(first))
    disk = SimpleNamespace(free=SIZE - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    os.close(cache.open(second))
    assert [cache.holds(first), cache.holds(second)] == [False, True]
    disk.free = -SIZE
    with pytest.raises(DataError, match=f"must have room for a shard of {SIZE} bytes.*data.cache"):
        cache.open(first)


def test_a_disk_that_fills_up_meanwhile_says_so_at_once(server: Server, cache: NodeCache) -> None:
    status, message = ended(start_client(cache, publish(server, "a.tar"), largest=SIZE // 2))
    assert status == 1
    assert "failed 1 time" in message
    assert "free some of the disk" in message
    assert parts(cache) == whole(cache) == []


def test_a_folder_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/x: the cache .* set data.cache.folder or SSL_SCALE_"):
        NodeCache(tmp_path / "file/x").open(publish(server, "a.tar"))


def test_what_the_dead_left_is_removed_and_what_is_not_ours_stays(
    server: Server, cache: NodeCache
) -> None:
    cache = replace(cache, max_bytes=SIZE)
    folder = cache.subfolder(SHARDS)
    for name in (f"{'0' * 32}.{SIZE}.ab.part", "mine.tar", "mine.part", f"{'1' * 31}x"):
        (folder / name).write_bytes(b"x" * SIZE)
    os.close(cache.open(publish(server, "a.tar")))
    left = {path.name for path in folder.iterdir()} - {path.name for path in whole(cache)}
    assert {name for name in left if "lock" not in name} == {"mine.tar", "mine.part"}


def test_parts_on_their_way_count_and_are_waited_for(server: Server, cache: NodeCache) -> None:
    cache = replace(cache, max_bytes=SIZE + 10)
    key = "0" * 32
    folder = cache.subfolder(SHARDS)
    (folder / f"{key}.{SIZE}.ab.part").touch()
    waiting = threading.Thread(target=lambda: os.close(cache.open(publish(server, "a.tar"))))
    with locked(folder / f"{key}.lock"):
        waiting.start()
        time.sleep(0.5)
        assert server.gets == {}
    waiting.join(20)
    assert server.gets == {"a.tar": 1}


def test_a_cached_shard_that_was_cut_is_brought_anew(server: Server, cache: NodeCache) -> None:
    file = publish(server, "a.tar")
    os.close(cache.open(file))
    os.truncate(whole(cache)[0], 5)
    assert read(cache, file) == published(file, server)


def test_shards_of_one_name_and_other_contents_are_told_apart(
    server: Server, cache: NodeCache
) -> None:
    old = publish(server, "a.tar", seed=1)
    os.close(cache.open(old))
    new = publish(server, "a.tar", seed=2)
    assert read(cache, new) == published(new, server)
    assert server.gets == {"a.tar": 2}


def test_names_are_names_whatever_they_look_like(server: Server, cache: NodeCache) -> None:
    (server.folder / "a%3Fb%23.tar").write_bytes(b"x")
    file = RemoteFile(server.url, "a?b#.tar", 1, xxhash.xxh3_128_hexdigest(b"x"))
    assert read(cache, file) == b"x"


def test_reading_ahead_spares_what_is_in_use_and_never_waits(
    server: Server, cache: NodeCache
) -> None:
    cache = replace(cache, max_bytes=2 * SIZE)
    files = [publish(server, f"{number}.tar") for number in range(3)]
    for file in files[:2]:
        cache.fetch_ahead(file)
    cache.fetch_ahead(files[0])
    cache.fetch_ahead(files[2])
    assert [cache.holds(file) for file in files] == [True, True, False]
    for path in whole(cache):
        os.utime(path, (1, 1))
    cache.fetch_ahead(files[2])
    assert cache.holds(files[2])
    assert server.gets == {"0.tar": 1, "1.tar": 1, "2.tar": 1}


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_SCALE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_folder() == Path("/x/ssl_scale")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache/ssl_scale"
    monkeypatch.setenv("SSL_SCALE_CACHE", "/local/cache")
    assert default_folder() == Path("/local/cache")
