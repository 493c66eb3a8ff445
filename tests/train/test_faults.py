"""Faults, injected for real: afterwards a run goes on from its newest valid state, and says so."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from ssl_scale.checkpoint.reader import Reader
from ssl_scale.errors import SslScaleError
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.train.lease.hold import NAME
from ssl_scale.train.lease.holder import Holder
from ssl_scale.train.lease.page import Page, read
from ssl_scale.train.records import read_metrics
from tests.distributed import ENVIRONMENT, run_ranks
from tests.train.kills import drafts, strike
from tests.train.tiny import PRELOAD, fit_ranks, make_recipe, newest, saved

pytestmark = [pytest.mark.dist, pytest.mark.timeout(600)]

ENDLESS = 1_000_000


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("tiny"), norm="batch")


def assert_same_end(one: Path, other: Path) -> None:
    """The last checkpoints of two runs are equal bit for bit."""
    mine, theirs = saved(one), saved(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def saved_steps(run_folder: Path) -> list[int]:
    """Steps of the checkpoints that are there."""
    found = (run_folder / "checkpoints").glob("step-?????????")
    return sorted(int(path.name[5:]) for path in found)


def steps_of(run_folder: Path) -> list[int]:
    lines = read_metrics(run_folder / "metrics.jsonl")
    return [line["step"] for line in lines if line["kind"] == "train"]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def tell_into(file: Path, also: Callable[[], None] | None = None) -> None:
    """Let rank 0 say what it has to say into a file."""
    if os.environ["RANK"] == "0":
        os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
        if also is not None:
            threading.Thread(target=also, daemon=True).start()


# Killed.


@pytest.mark.slow
def test_a_run_killed_five_times_ends_bit_for_bit_like_one_that_was_not(tmp_path: Path) -> None:
    run = strike(
        tmp_path,
        5,
        60,
        11,
        victims=("one rank", "all ranks"),
        moments=("any", "saving", "saving"),
        workers=0,
    )
    assert run.kills == 5 and set(run.by_victims) == {"one rank", "all ranks"}
    assert run.saves_cut_off >= 1
    assert run.struck == run.straight
    assert_same_end(tmp_path / "straight", tmp_path / "struck")
    assert steps_of(tmp_path / "struck") == list(range(1, 61))
    assert drafts(tmp_path / "struck") == set()


# Two runs in one folder.


def start_here(recipe: Path, run_folder: Path) -> str:
    """One of two runs of one process each in the same folder; how it ended."""
    from ssl_scale.train.fit import fit

    is_second = os.environ["RANK"] == "1"
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    settings = [f"train.steps={ENDLESS}", "train.zero=0", "train.save_every=5"]
    if is_second:
        wait_for(lambda: len(saved_steps(run_folder)) > 0)
    try:
        fit(read_recipe(recipe, settings), run_folder, resume=not is_second)
    except SystemExit as stopped:
        return f"stopped with {stopped.code}"
    except SslScaleError as refusal:
        page = read(run_folder / NAME)
        assert page is not None and page.holder is not None
        os.kill(page.holder.pid, signal.SIGTERM)
        return str(refusal)
    return "ended"


def test_of_two_runs_in_one_folder_the_second_is_refused_though_it_would_start_over(
    recipe: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    first, second = run_ranks(start_here, 2, recipe, folder, preload=PRELOAD, group=False)
    assert first == "stopped with 75"
    assert second.startswith(f"{folder}: must be the folder of one run at a time, but process ")
    steps = steps_of(folder)
    assert steps == list(range(1, len(steps) + 1))
    assert Reader(newest(folder)).state["done"] == len(steps)
    assert not list(folder.glob("checkpoints.before-*"))
    assert not (folder / NAME).exists()


def be_taken_over(run_folder: Path) -> None:
    """Somebody far away takes the folder over, once the run trains."""
    wait_for(lambda: len(saved_steps(run_folder)) > 1)
    other = Page.of(Holder("f" * 32, "far", "b", 1, 1, "", "", "j", 0, 3.0), 0)
    draft = run_folder / "draft"
    draft.write_bytes(other.raw)
    (run_folder / "then").write_text(str(saved_steps(run_folder)[-1]))
    draft.replace(run_folder / NAME)


def test_a_run_that_lost_its_folder_stops_on_all_ranks_and_saves_nothing_more(
    recipe: Path, tmp_path: Path
) -> None:
    settings = (f"train.steps={ENDLESS}", "train.save_every=1")
    change = partial(tell_into, tmp_path / "told", partial(be_taken_over, tmp_path))
    with pytest.raises(
        SslScaleError, match="must name this run until it ends, but names process 1"
    ):
        fit_ranks(recipe, tmp_path, 2, *settings, change=change)
    # One commit may have come before, and one have been under way; the next beat is far.
    assert saved_steps(tmp_path)[-1] <= int((tmp_path / "then").read_text()) + 2
    page = read(tmp_path / NAME)
    assert page is not None and page.token == "f" * 32


# A disk that fills up.


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that holds few checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


SMALL, LARGE = "size=900k", "size=100m"


def make_room(run_folder: Path, notes: Path) -> None:
    """Make the disk larger once two saves have failed; note what stood there until then."""
    tried: set[int] = set()
    while len(tried) < 3:
        tried |= {int(path.name[5:14]) for path in drafts(run_folder)}
        tried -= set(saved_steps(run_folder))
        time.sleep(0.0005)
    reader = Reader(newest(run_folder))
    reader.verify()
    subprocess.run(["mount", "-o", f"remount,{LARGE}", str(run_folder)], check=True)
    notes.write_text(json.dumps([reader.state["done"], max(tried)]))


@pytest.mark.slow
def test_a_run_goes_on_while_its_disk_is_full_and_saves_again_when_there_is_room(
    recipe: Path, disk: Path, tmp_path: Path
) -> None:
    settings = ("train.steps=90", "train.save_every=3", "train.keep_last=100")
    assert fit_ranks(recipe, tmp_path / "straight", 2, *settings) == [0, 0]
    notes = tmp_path / "notes"
    change = partial(tell_into, tmp_path / "told", partial(make_room, disk, notes))
    assert fit_ranks(recipe, disk, 2, *settings, change=change) == [0, 0]
    told = (tmp_path / "told").read_text()
    assert told.count("a checkpoint could not be written: ") >= 2, told
    kept, tried = json.loads(notes.read_text())
    assert 0 < kept < tried < 90
    steps = saved_steps(disk)
    assert steps[-1] == 90 and tried not in steps
    assert steps[: kept // 3] == list(range(3, kept + 1, 3))
    assert drafts(disk) == set()
    assert_same_end(tmp_path / "straight", disk)


# Damage.


def cut(part: Path) -> None:
    with part.open("rb+") as file:
        file.truncate(part.stat().st_size // 2)


def flip(part: Path) -> None:
    data = bytearray(part.read_bytes())
    data[-5] ^= 0x10
    part.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (cut, "part-00001.safetensors"),
        (flip, "part-00001.safetensors"),
        (Path.unlink, "part-00000.safetensors"),
        (flip, "part-00000.json"),
        (cut, "COMMIT"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    damage: Callable[[Path], None], name: str, recipe: Path, tmp_path: Path
) -> None:
    settings = ("train.steps=8", "train.save_every=2", "train.keep_last=3")
    assert fit_ranks(recipe, tmp_path / "straight", 2, *settings) == [0, 0]
    struck = tmp_path / "struck"
    fit_ranks(recipe, struck, 2, *settings, max_steps=6)
    assert newest(struck).name == "step-000000006"
    damage(newest(struck) / name)
    cut_off = struck / "checkpoints" / "step-000000008.tmp-1"
    cut_off.mkdir()
    told = tmp_path / "told"
    assert fit_ranks(recipe, struck, 2, *settings, change=partial(tell_into, told)) == [0, 0]
    lines = told.read_text().splitlines()
    assert [line for line in lines if "passed over: " in line and "step-000000006" in line], lines
    assert f"passed over: {cut_off}: a save that was cut off" in lines
    assert f"continuing {struck} after step 4 (attempt 2)" in lines
    assert_same_end(tmp_path / "straight", struck)
    assert steps_of(struck) == list(range(1, 9))


# Clocks that jump.

JUMPING = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long offset(void) {  // hours, as the file says just now
  long hours = 0;
  const char *path = getenv("JUMP_FILE");
  FILE *file = path ? fopen(path, "r") : NULL;
  if (!file) return 0;
  if (fscanf(file, "%ld", &hours) != 1) hours = 0;
  fclose(file);
  return hours * 3600;
}

int clock_gettime(clockid_t which, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int code = real(which, now);
  if (which == CLOCK_REALTIME && code == 0) now->tv_sec += offset();
  return code;
}
"""


@pytest.fixture
def jumping_clock(tmp_path: Path) -> dict[str, str]:
    """What lets a process's date be hours off, as a file says at any time."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    source, library, hours = (tmp_path / name for name in ("jump.c", "jump.so", "hours"))
    source.write_text(JUMPING)
    hours.write_text("0")
    command = ["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    environment = {"LD_PRELOAD": str(library), "JUMP_FILE": str(hours)}
    here = time.time()
    hours.write_text("5")
    shown = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert 4.9 * 3600 < float(shown.stdout) - here < 5.1 * 3600
    return environment


def start(
    prefix: list[str], recipe: Path, run_folder: Path, environment: dict[str, str]
) -> "subprocess.Popen[str]":
    options = ["--set", "train.steps=60", "--set", "train.save_every=5"]
    command = ["-m", "ssl_scale.cli.main", "fit", str(recipe), "--run-folder", str(run_folder)]
    return subprocess.Popen(
        [*prefix, sys.executable, *command, *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENVIRONMENT, **environment},
    )


@pytest.mark.slow
def test_clocks_that_jump_between_and_during_attempts_change_nothing(
    recipe: Path, tmp_path: Path, jumping_clock: dict[str, str]
) -> None:
    shifted = ["unshare", "--time", "--monotonic=500000", "--boottime=500000", "--fork"]
    shifted.append("--kill-child")
    if subprocess.run([*shifted, "true"]).returncode:
        pytest.skip("must be allowed: unshare --time")
    straight, struck = tmp_path / "straight", tmp_path / "struck"
    hours = Path(jumping_clock["JUMP_FILE"])
    assert fit_ranks(recipe, straight, 1, "train.steps=60", "train.save_every=5") == [0]
    told = []
    # Far ahead by every clock; then back, and the date goes to and fro; then as it is.
    for prefix, jumps, until in ((shifted, ("9",), 12), ([], ("-9", "4", "-30"), 36)):
        process = start(prefix, recipe, struck, jumping_clock)
        began = len(steps_of(struck))
        for number, jump in enumerate(jumps, 1):
            hours.write_text(jump)
            goal = began + (until - began) * number // len(jumps)
            wait_for(lambda goal=goal: len(steps_of(struck)) >= goal)
        process.kill()
        told.append(process.communicate()[1])
    process = start([], recipe, struck, {})
    told.append(process.communicate(timeout=120)[1])
    assert process.returncode == 0, told[-1]
    assert all("taken over from" in text and "the process is gone" in text for text in told[1:])
    assert f"continuing {struck} after step " in told[1] and "(attempt 3)" in told[2]
    assert_same_end(straight, struck)
    assert steps_of(struck) == list(range(1, 61))
    dates = [line["time"] for line in read_metrics(struck / "metrics.jsonl")]
    assert min(dates) < time.time() - 20 * 3600 and dates != sorted(dates)
