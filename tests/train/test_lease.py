"""A run's folder is held by one process at a time, and by another as soon as that one is dead."""

import json
import multiprocessing
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from ssl_scale.checkpoint.layout import write_durably
from ssl_scale.errors import SslScaleError
from ssl_scale.train.lease.holder import Holder
from ssl_scale.train.lease.lease import Lease
from ssl_scale.train.lease.page import Page, create, read
from ssl_scale.train.lease.taking import take
from tests.train.holding import BEAT_S, LINKING, Taker

NEVER_S = 3000.0  # a beat so slow that who waits for one runs into the test's time limit
ELSEWHERE: dict[str, Any] = {"host": "n2", "boot": "another"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "RUNNING"


def kill(taker: Taker) -> None:
    taker.process.kill()
    taker.process.wait()


def leave(path: Path, **changes: Any) -> Page:
    """The lease of a process that is gone, or of another that does not beat."""
    process = subprocess.Popen(["true"])
    process.wait()
    gone = replace(Holder.here(BEAT_S), **{"pid": process.pid, **changes})
    page = Page.of(gone, 7)
    assert create(path, page)
    return page


def files(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def beats_of(path: Path) -> int:
    page = read(path)
    assert page is not None
    return page.beats


def process_of(path: Path) -> int:
    page = read(path)
    assert page is not None and page.holder is not None
    return page.holder.pid


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_comes_second_is_refused_and_told_who_was_first(path: Path) -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "big", "SLURM_RESTART_COUNT": "2"}
    with Taker(path, environment=job) as first:
        assert first.end() == ["held"]
        with Taker(path, missed=1000) as second:
            waits, refused = second.end()
        name = f"process {first.process.pid} on {socket.gethostname()}, Slurm job big:7, restart 2"
        assert waits == (
            f"{path}: held by {name}; waiting for a sign of life, if none comes for 50 s"
        )
        assert f"{path.parent}: must be the folder of one run at a time, but {name} tr" in refused
        assert "--run-folder" in refused and f"less than {BEAT_S:g} s ago" in refused
        assert first.ask() == "ours"
        assert first.give_back() == ""
    assert files(path) == []
    with Taker(path) as third:
        assert third.end() == ["held"]


def test_a_killed_holder_is_followed_at_once(path: Path) -> None:
    with Taker(path, beat_s=NEVER_S) as first:
        first.end()
        first.process.kill()
        stat = Path(f"/proc/{first.process.pid}/stat")
        wait_for(lambda: ") Z " in stat.read_text())  # dead, but its parent has not looked yet
        with Taker(path) as second:
            assert second.end() == [
                f"{path}: taken over from process {first.process.pid} on {socket.gethostname()}: "
                "the process is gone",
                "held",
            ]
            assert second.give_back() == ""
    assert files(path) == []


def test_a_holder_that_dies_while_another_waits_is_followed_at_once(path: Path) -> None:
    with Taker(path, beat_s=NEVER_S) as first:
        first.end()
        with Taker(path) as second:
            assert "waiting for a sign of life" in second.hear()
            kill(first)
            over, held = second.end()
            assert over.endswith("the process is gone") and held == "held"


def test_a_later_process_of_the_same_number_is_not_the_holder(path: Path) -> None:
    leave(path, pid=os.getpid(), started=1, beat_s=NEVER_S)
    with Taker(path) as taker:
        assert taker.end()[0].endswith("the process is gone, another has its number")


@pytest.mark.parametrize("change", [{"pids": "pid:[1]"}, {"boot": "another"}, {"host": "n2"}])
def test_where_the_number_means_nothing_a_holder_must_miss_its_beats(
    path: Path, change: Mapping[str, str]
) -> None:
    page = leave(path, **change)
    began = time.monotonic()
    with Taker(path, missed=8) as taker:
        waits, over, held = taker.end()
    assert time.monotonic() - began > 8 * BEAT_S
    assert f"held by {page}; waiting" in waits and held == "held"
    assert f"taken over from {page}: no sign of life in 0.4" in over


def test_another_clocks_start_times_are_not_compared(path: Path) -> None:
    leave(path, pid=os.getpid(), started=1, clocks="time:[1]")
    with Taker(path) as taker:
        assert "no sign of life" in taker.end()[1]


def test_a_host_that_beats_is_not_followed_from_another(path: Path) -> None:
    with Taker(path, **ELSEWHERE) as first:
        first.end()
        with Taker(path, missed=1000) as second:
            assert second.end()[-1].startswith("refused")
        assert first.ask() == "ours"


def test_who_is_followed_while_it_writes_leaves_the_lease_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = Holder.here(NEVER_S)
    assert create(path, Page.of(me, 0))
    lease, other = Lease(path, me), Page.of(replace(me, token="f" * 32), 0)

    def slowly(draft: Path, data: bytes) -> None:
        write_durably(draft, data)
        path.write_bytes(other.raw)

    monkeypatch.setattr("ssl_scale.train.lease.lease.write_durably", slowly)
    with pytest.raises(SslScaleError, match="must name this run until it ends"):
        lease._beat()
    lease.release()
    assert read(path) == other and files(path) == ["RUNNING"]


JOB = {"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "a"}
ARRAY = {**JOB, "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "1"}
AGAIN = {"SLURM_RESTART_COUNT": "1"}


@pytest.mark.parametrize("job", [JOB, ARRAY, {"SLURM_JOB_ID": "7"}])
def test_a_job_that_restarts_elsewhere_follows_itself_at_once(
    path: Path, job: dict[str, str]
) -> None:
    with Taker(path, environment=job, **ELSEWHERE) as first:
        first.end()
        with Taker(path, beat_s=NEVER_S, environment={**job, **AGAIN}) as second:
            over, held = second.end()
            assert over.endswith("Slurm has started the job again (0 -> 1)") and held == "held"
            # The first one lives after all: it sees what happened, and leaves the lease alone.
            time.sleep(4 * BEAT_S)
            assert process_of(path) == second.process.pid
            lost = first.ask()
            assert lost.startswith(f"lost: {path}: must name this run until it ends, but names ")
            assert f"process {second.process.pid}" in lost
            assert first.give_back() == ""
            assert process_of(path) == second.process.pid
            assert second.ask() == "ours"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (JOB, {**JOB, **AGAIN, "SLURM_CLUSTER_NAME": "b"}),
        (JOB, {**AGAIN, **JOB, "SLURM_JOB_ID": "8"}),
        (ARRAY, {**ARRAY, **AGAIN, "SLURM_ARRAY_TASK_ID": "2"}),
        (JOB, JOB),
        ({**JOB, **AGAIN}, JOB),
        ({}, AGAIN),
    ],
)
def test_another_job_is_refused(path: Path, first: dict[str, str], then: dict[str, str]) -> None:
    with Taker(path, environment=first, **ELSEWHERE) as holder:
        holder.end()
        with Taker(path, missed=1000, environment=then) as taker:
            assert taker.end()[-1].startswith("refused")


@pytest.mark.parametrize("torn", ["", '{"token": "ab', "[" * 9000, '{"beats": 1}', "null"])
def test_a_torn_lease_is_followed_after_a_while(path: Path, torn: str) -> None:
    path.write_text(torn)
    with Taker(path) as taker:
        waits, over, _ = taker.end()
        assert "held by an unknown process" in waits and "no sign of life" in over
        assert taker.ask() == "ours"
    assert files(path) == ["RUNNING"]


@pytest.mark.parametrize(
    "wrong",
    [{"token": "../../x"}, {"token": 3}, {"pid": 1 << 40}, {"beat_s": 1e9}, {"host": None}],
)
def test_a_page_that_cannot_be_is_no_page(wrong: dict[str, Any]) -> None:
    sound = json.loads(Page.of(Holder.here(1), 3).raw)
    assert Page.parse("RUNNING", json.dumps(sound).encode()).beats == 3
    page = Page.parse("RUNNING", json.dumps(sound | wrong).encode())
    assert page.holder is None and page.token.startswith("unknown-")


def test_a_follower_that_was_killed_on_the_way_is_followed(path: Path) -> None:
    page = leave(path)
    leave(path.with_name(f"RUNNING.after-{page.token}"))
    with Taker(path) as taker:
        assert taker.end()[-1] == "held"
        assert taker.give_back() == ""
    assert files(path) == []


def test_a_follower_on_its_way_is_not_overtaken(path: Path) -> None:
    page = leave(path)
    with Taker(path.with_name(f"RUNNING.after-{page.token}"), **ELSEWHERE) as follower:
        follower.end()
        with Taker(path, missed=1000) as taker:
            assert taker.end()[-1].startswith("refused")


RACERS, RACES = 4, 40


def race(folder: Path, gate: Barrier, number: int) -> None:
    """Take what is there in each of the folders, at the same time as the others."""
    for at in range(RACES):
        path, me = folder / str(at) / "RUNNING", Holder.here(0.02)
        gate.wait(60)
        try:
            take(path, me, 10**6, lambda _: None)
        except SslScaleError:
            (path.parent / f"refused-{number}").touch()
            gate.wait(60)
            continue
        lease = Lease(path, me)
        (path.parent / f"won-{number}").touch()
        gate.wait(60)
        lease.check()
        lease.release()


@pytest.mark.parametrize("kind", ["free", "dead", "dead with a dead follower"])
def test_of_many_who_come_at_once_one_wins(tmp_path: Path, kind: str) -> None:
    for at in range(RACES):
        (tmp_path / str(at)).mkdir()
        if kind != "free":
            page = leave(tmp_path / str(at) / "RUNNING")
        if kind == "dead with a dead follower":
            leave(tmp_path / str(at) / f"RUNNING.after-{page.token}")
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(RACERS)
    racers = [context.Process(target=race, args=(tmp_path, gate, n)) for n in range(RACERS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(120)
    assert [racer.exitcode for racer in racers] == [0] * RACERS
    for at in range(RACES):
        ends = sorted(entry.name.split("-")[0] for entry in (tmp_path / str(at)).iterdir())
        assert ends == ["refused"] * (RACERS - 1) + ["won"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip(f"only root may mount: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Write until there is no room; what to remove for room."""
    ballast = disk / "ballast"
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return ballast


def test_a_full_disk_stops_the_beats_and_not_the_holder(small_disk: Path) -> None:
    path = small_disk / "RUNNING"
    with Taker(path) as taker:
        taker.end()
        ballast = fill(small_disk)
        at = beats_of(path)
        time.sleep(6 * BEAT_S)
        assert beats_of(path) <= at + 1  # one may have been under way
        assert taker.ask() == "ours"
        ballast.unlink()
        at = beats_of(path)
        wait_for(lambda: beats_of(path) > at + 1)
        fill(small_disk).unlink()
        told = taker.give_back()
    assert told.count(f"{path} can't be renewed: [Errno 28] No space left on device") == 1
    assert files(path) == []


def test_a_full_disk_is_told_to_who_would_take_the_folder(small_disk: Path) -> None:
    fill(small_disk)
    with Taker(small_disk / "RUNNING") as taker:
        [refused] = taker.end()
    assert "RUNNING: must be a file that can be written, but is not ([Errno 28]" in refused
    assert not (small_disk / "RUNNING").exists()


def test_a_lease_removed_by_hand_is_made_again(path: Path) -> None:
    with Taker(path) as taker:
        taker.end()
        path.unlink()
        wait_for(path.exists)
        assert taker.ask() == "ours"


@pytest.mark.skipif(platform.machine() not in LINKING, reason="its system calls are not known")
def test_a_file_system_without_links_will_do(path: Path) -> None:
    with Taker(path, may_link=False) as first:
        assert first.end() == ["held"]
        with Taker(path, missed=1000, may_link=False) as second:
            assert second.end()[-1].startswith("refused")
        kill(first)
        with Taker(path, may_link=False) as third:
            assert third.end()[-1] == "held"
            assert third.ask() == "ours"
            assert third.give_back() == ""
    assert files(path) == []


def unshared(*arguments: str) -> list[str]:
    """A command prefix: other namespaces, where that is allowed."""
    command = ["unshare", *arguments, "--"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"]).returncode:
        pytest.skip(f"must be allowed: {' '.join(command)}")
    return command


SHIFTED = ("--time", "--monotonic=500000", "--boottime=500000")


def test_clocks_that_jump_neither_hide_a_holder_nor_keep_a_dead_one(path: Path) -> None:
    prefix = unshared(*SHIFTED, "--fork", "--kill-child")
    with Taker(path) as first:
        first.end()
        # There the holder's start seems to be another.
        with Taker(path, missed=1000, prefix=prefix) as second:
            assert second.end()[-1].startswith("refused")
        assert first.ask() == "ours"
        kill(first)
        with Taker(path, prefix=prefix) as third:
            over, held = third.end()
            assert over.endswith("the process is gone") and held == "held"
            assert third.ask() == "ours"


def test_another_namespace_of_processes_is_another_world(path: Path) -> None:
    prefix = unshared("--pid", "--fork", "--kill-child", "--mount-proc")
    with Taker(path, prefix=prefix) as first:
        first.end()
        with Taker(path, missed=1000) as second:
            assert second.end()[-1].startswith("refused")
