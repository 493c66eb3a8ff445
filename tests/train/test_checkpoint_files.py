"""Checkpoints on disk: only what is whole is read, whatever happens while one is written."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssl_scale import dist
from ssl_scale.checkpoint import layout
from ssl_scale.checkpoint.reader import Reader, read_weights
from ssl_scale.errors import CheckpointError
from ssl_scale.train.checkpoint.choosing import choose
from ssl_scale.train.checkpoint.contents import Contents, Piece, read_observed
from ssl_scale.train.checkpoint.writer import Writer
from tests.distributed import run_ranks
from tests.train.tiny import PRELOAD

SHAPE = (5, 7)
STATE = {"fingerprint": "ours"}


def weights_after(step: int) -> Tensor:
    return torch.arange(35.0).view(SHAPE) + 100 * step


def contents(step: int, rank: int = 0, world_size: int = 1) -> Contents:
    """One rank's share of a matrix that is cut into unequal pieces."""
    cuts = [35 * number // world_size for number in range(world_size + 1)]
    values = weights_after(step).view(-1)[cuts[rank] : cuts[rank + 1]].clone()
    pieces = {"master/w": Piece(values, cuts[rank], SHAPE)}
    if rank == 0:
        pieces["observer/probe.seen"] = Piece(torch.tensor([step]), 0, ())
    return Contents(pieces, {"w": float(step)})


def save(checkpoints: Path, *steps: int, world_size: int = 1, **options: int) -> None:
    writers = [
        Writer(checkpoints, rank, world_size, options.pop("attempt", 1), **options)
        for rank in range(world_size)
    ]
    for step in steps:
        for rank, writer in enumerate(writers):
            writer.save(step, contents(step, rank, world_size), STATE | {"done": step})
        assert [writer.join() for writer in writers] == [None] * world_size


def steps_of(checkpoints: Path) -> list[int]:
    return [commit["step"] for _, commit in layout.valid(checkpoints)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_any_slice_is_read_whoever_wrote_it(tmp_path: Path, world_size: int) -> None:
    save(tmp_path, 4, world_size=world_size)
    reader = Reader(tmp_path / "step-000000004")
    assert torch.equal(reader.read_whole("master/w"), weights_after(4))
    whole = weights_after(4).view(-1)
    for start, numel in ((0, 35), (3, 20), (17, 1), (34, 1), (10, 0)):
        assert torch.equal(reader.read("master/w", start, numel), whole[start : start + numel])
    with pytest.raises(CheckpointError, match="elements 35..36 of 'master/w' are missing"):
        reader.read("master/w", 30, 6)
    assert reader.counter("w") == 4
    assert read_observed(reader) == {"probe.seen": torch.tensor(4)}
    assert read_weights(reader.folder).keys() == {"w"}


def cut_in_half(folder: Path) -> None:
    os.truncate(folder / "part-00001.safetensors", 60)


def flip(name: str, place: float = 0.9) -> object:
    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[int(len(content) * place)] ^= 1
        (folder / name).write_bytes(content)

    damage.__name__ = f"flip_{name}_{place}"
    return damage


DAMAGES = {
    "no COMMIT": (lambda folder: (folder / "COMMIT").unlink(), "No such file.*COMMIT"),
    "an empty COMMIT": (lambda folder: (folder / "COMMIT").write_bytes(b""), "Expecting value"),
    "half a COMMIT": (lambda folder: os.truncate(folder / "COMMIT", 40), "Unterminated|Expecting"),
    "no object in COMMIT": (lambda folder: (folder / "COMMIT").write_bytes(b"3"), "not a checkp"),
    "a truncated part": (cut_in_half, "must hold .* bytes, but holds 60"),
    "a missing part": (
        lambda f: (f / "part-00001.safetensors").unlink(),
        "No such file.*part-0000",
    ),
    "a missing page": (lambda folder: (folder / "part-00000.json").unlink(), "No such file.*json"),
    "a flipped bit in a part": (flip("part-00001.safetensors"), "bytes on disk are not those"),
    "a flipped bit in a page": (flip("part-00000.json"), "bytes on disk are not those"),
    "a flipped digit in COMMIT": (
        lambda folder: (folder / "COMMIT").write_text(
            (folder / "COMMIT").read_text().replace('"done": 8', '"done": 9')
        ),
        "must be as it was written",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_the_reason(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 4, 8, world_size=2)
    harm, reason = DAMAGES[damage]
    harm(tmp_path / "step-000000008")  # type: ignore[operator]
    source = choose(tmp_path, "ours")
    assert source is not None and source.state["done"] == 4
    assert torch.equal(source.read_whole("master/w"), weights_after(4))
    told = capsys.readouterr().err + "\n".join(layout.broken(tmp_path))
    assert "step-000000008" in told
    with pytest.raises(CheckpointError, match=reason):
        Reader(tmp_path / "step-000000008").verify()


def test_nothing_to_continue_from_is_no_error(tmp_path: Path) -> None:
    assert choose(tmp_path / "none", "ours") is None


def test_another_recipes_checkpoint_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 4)
    with pytest.raises(
        CheckpointError, match="fingerprint theirs.*but is of another.*ours"
    ) as told:
        choose(tmp_path, "theirs")
    assert told.value.exit_code == 2


def chosen_step(folders: list[Path]) -> int | None:
    source = choose(folders[dist.rank()], "ours")
    return None if source is None else int(source.state["done"])


@pytest.mark.dist
def test_all_ranks_fall_back_together(tmp_path: Path) -> None:
    save(tmp_path / "0", 4, 8, 12, world_size=2, keep_last=3)
    shutil.copytree(tmp_path / "0", tmp_path / "1")  # each host sees its own copy of the disk
    flip("part-00000.safetensors")(tmp_path / "0" / "step-000000012")  # type: ignore[operator]
    shutil.rmtree(tmp_path / "1" / "step-000000008")
    folders = [tmp_path / "0", tmp_path / "1"]
    assert run_ranks(chosen_step, 2, folders, preload=PRELOAD) == [4, 4]


def test_the_newest_and_every_so_many_stay(tmp_path: Path) -> None:
    save(tmp_path, *range(1, 9), keep_last=2, keep_every=5)
    assert steps_of(tmp_path) == [8, 7, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"step-00000000{step}" for step in (5, 7, 8)
    ]


def test_what_was_just_saved_stays_beside_a_newer_one_that_is_damaged(tmp_path: Path) -> None:
    save(tmp_path, 4, 8, keep_last=2)
    flip("part-00000.safetensors")(tmp_path / "step-000000008")  # type: ignore[operator]
    save(tmp_path, 6, attempt=2, keep_last=1)
    source = choose(tmp_path, "ours")
    assert source is not None and source.state["done"] == 6


def test_a_step_saved_again_replaces_the_damaged_one(tmp_path: Path) -> None:
    save(tmp_path, 8)
    flip("part-00000.safetensors")(tmp_path / "step-000000008")  # type: ignore[operator]
    save(tmp_path, 8, attempt=2)
    Reader(tmp_path / "step-000000008").verify()


def test_leftovers_of_dead_attempts_go(tmp_path: Path) -> None:
    for name in ("step-000000003.tmp-1", "step-000000003.tmp-2", ".trash-step-000000001"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part-00000.json").write_text("{}")
    save(tmp_path, 5, attempt=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000005"]


def test_a_rank_that_cannot_write_fails_the_save_of_all(tmp_path: Path) -> None:
    first, second = (Writer(tmp_path, rank, 2, 1, patience_s=60) for rank in range(2))
    broken = Contents({"master/w": Piece(torch.empty(3, device="meta"), 0, (3,))})
    began = time.monotonic()
    first.save(4, contents(4, 0, 2), STATE)
    second.save(4, broken, STATE)
    failures = first.join(), second.join()
    assert "rank 1 could not write its part" in str(failures[0]) and failures[1]
    assert time.monotonic() - began < 30 and steps_of(tmp_path) == []
    save(tmp_path, 5, world_size=2)  # and the next one is sound
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000005"]


def test_a_rank_that_failed_before_the_others_began_fails_the_save_too(tmp_path: Path) -> None:
    first, second = (Writer(tmp_path, rank, 2, 1, patience_s=10) for rank in range(2))
    broken = Contents({"master/w": Piece(torch.empty(3, device="meta"), 0, (3,))})
    second.save(4, broken, STATE)
    assert second.join()
    first.save(4, contents(4, 0, 2), STATE)
    assert "rank 1 could not write its part" in str(first.join())
    assert list(tmp_path.iterdir()) == []


def test_a_step_saved_again_finds_nothing_of_a_save_that_failed(tmp_path: Path) -> None:
    first, second = (Writer(tmp_path, rank, 2, 1, patience_s=60) for rank in range(2))
    broken = Contents({"master/w": Piece(torch.empty(3, device="meta"), 0, (3,))})
    first.save(4, broken, STATE)
    assert first.join()
    second.save(4, contents(3, 1, 2), STATE)  # its part comes after the save has failed
    assert second.join() is None
    # The run goes back, and comes to the same step by other batches.
    first.save(4, contents(4, 0, 2), STATE)
    time.sleep(0.2)
    second.save(4, contents(4, 1, 2), STATE)
    assert (first.join(), second.join()) == (None, None)
    found = Reader(tmp_path / "step-000000004")
    found.verify()
    assert torch.equal(found.read_whole("master/w"), weights_after(4))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000004"]


def test_the_next_save_of_a_faster_rank_is_left_alone(tmp_path: Path) -> None:
    first, second = (Writer(tmp_path, rank, 2, 1, patience_s=60) for rank in range(2))
    second.save(4, contents(4, 1, 2), STATE)
    second.save(8, contents(8, 1, 2), STATE)
    assert second.join() is None
    first.save(4, contents(4, 0, 2), STATE)
    first.save(8, contents(8, 0, 2), STATE)
    assert first.join() is None and steps_of(tmp_path) == [8, 4]


def test_a_part_that_never_comes_fails_the_save(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 0, 2, 1, patience_s=0.05)
    writer.save(4, contents(4, 0, 2), STATE)
    assert "part-00001.json" in str(writer.join())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_fails_the_save(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file stands in the way")
    writer = Writer(tmp_path / "checkpoints", 0, 1, 1)
    writer.save(4, contents(4), STATE)
    assert "NotADirectoryError" in str(writer.join())
    assert writer.join() is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk must be allowed")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_fails_the_save_and_holds_no_rubbish(small_disk: Path) -> None:
    writer = Writer(small_disk, 0, 1, 1)
    writer.save(1, contents(1), STATE)
    assert writer.join() is None
    big = Contents({"master/w": Piece(torch.zeros(32_000), 0, (32_000,))})
    writer.save(2, big, STATE)
    assert "No space left" in str(writer.join())
    assert [path.name for path in small_disk.iterdir()] == ["step-000000001"]
    writer.save(3, contents(3), STATE)
    assert writer.join() is None and steps_of(small_disk) == [3, 1]


ENDLESS = """
import sys
from itertools import count
from pathlib import Path
import torch
from ssl_scale.train.checkpoint.contents import Contents, Piece
from ssl_scale.train.checkpoint.writer import Writer
folder, attempt = Path(sys.argv[1]), int(sys.argv[2])
writers = [Writer(folder, rank, 2, attempt) for rank in range(2)]
print("ready", flush=True)
for step in count(1 + 1000 * attempt):
    values = torch.arange(35.0) + 100 * step
    for rank, writer in enumerate(writers):
        piece = Piece(values[20 * rank : 20 + 20 * rank].clone(), 20 * rank, (5, 7))
        state = {"fingerprint": "ours", "done": step}
        writer.save(step, Contents({"master/w": piece}, {"w": 1.0}), state)
"""


@pytest.mark.slow
def test_a_kill_while_saving_leaves_nothing_that_reads_as_a_checkpoint_but_is_none(
    tmp_path: Path,
) -> None:
    chance = random.Random(0)
    for attempt in range(1, 6):
        with subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(tmp_path), str(attempt)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        ) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob("step-*.tmp-*")) and time.monotonic() < deadline:
                pass
            time.sleep(0.2 + chance.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
        found = list(layout.valid(tmp_path))
        assert found, "at least one save was finished"
        assert found[0][1]["step"] > 1000 * attempt, "this attempt finished one"
        for folder, commit in found:
            reader = Reader(folder)
            reader.verify()
            assert torch.equal(reader.read_whole("master/w"), weights_after(commit["step"]))
