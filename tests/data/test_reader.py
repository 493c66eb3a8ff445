import errno
import os
from pathlib import Path

import pytest

from ssl_scale.data.reader import ShardReader
from ssl_scale.errors import DataError


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "shard.tar"
    path.write_bytes(bytes(range(256)))
    return path


def test_ranges_are_read_and_few_files_stay_open(tmp_path: Path) -> None:
    reader = ShardReader(max_open=2)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(6):
        path = tmp_path / str(number)
        path.write_bytes(bytes([number]) * 10)
        assert reader.read(str(path), 10, "", 3, 4) == bytes([number]) * 4
    assert len(os.listdir("/proc/self/fd")) == before + 2
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_shard_of_another_size_is_refused_when_opened(shard: Path) -> None:
    with pytest.raises(DataError, match=r"shard\.tar: must be 99 bytes .* but is 256"):
        ShardReader().read(str(shard), 99, "", 0, 1)


def test_a_shard_cut_while_open_is_named(shard: Path) -> None:
    reader = ShardReader()
    assert reader.read(str(shard), 256, "", 200, 50) == bytes(range(200, 250))
    os.truncate(shard, 210)
    with pytest.raises(DataError, match="must have 50 bytes at 200, but ends after 10"):
        reader.read(str(shard), 256, "", 200, 50)


def test_a_shard_made_anew_is_opened_anew(shard: Path) -> None:
    reader = ShardReader()
    reader.read(str(shard), 256, "old", 0, 1)
    shard.unlink()
    shard.write_bytes(b"\xff" * 256)
    assert reader.read(str(shard), 256, "new", 0, 1) == b"\xff"


def test_a_read_that_fails_once_is_tried_again(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = os.pread, [OSError(errno.ESTALE, "stale"), OSError(errno.EIO, "I/O error")]

    def flaky(*arguments: int) -> bytes:
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(os, "pread", flaky)
    assert ShardReader().read(str(shard), 256, "", 7, 2) == b"\x07\x08"


def test_a_disk_that_keeps_failing_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reading failed 3 times .* nothing of the data is skipped"):
        ShardReader().read(str(tmp_path / "gone.tar"), 1, "", 0, 1)


def test_an_open_file_may_be_read_after_a_fork(shard: Path) -> None:
    reader = ShardReader()
    reader.read(str(shard), 256, "", 0, 1)
    child = os.fork()
    if child == 0:
        os._exit(0 if reader.read(str(shard), 256, "", 100, 5) == bytes(range(100, 105)) else 1)
    assert reader.read(str(shard), 256, "", 9, 1) == b"\x09"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
