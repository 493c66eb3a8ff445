"""``ssl-launch local``: what it starts, as data and for real."""

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ssl_scale_launch import cli
from ssl_scale_launch.gpus import choose_gpus, visible_gpus
from ssl_scale_launch.local import Launch, prepare

from ssl_scale.errors import SslScaleError

CPU = {"PATH": os.defpath, "CUDA_VISIBLE_DEVICES": ""}
FOUR_GPUS = {"PATH": os.defpath, "CUDA_VISIBLE_DEVICES": "4,5,6,7"}
COMMAND = str(Path(sys.executable).with_name("ssl-launch"))


def parse(*arguments: str) -> argparse.Namespace:
    parsed, parsed_others = cli.parser().parse_known_args(["local", *arguments])
    parsed.others = parsed_others
    return parsed


def launch_of(*arguments: str, environment: dict[str, str] = CPU) -> Launch:
    return prepare(parse(*arguments), environment)


def test_arguments_reach_fit_each_as_one_argument() -> None:
    launch = launch_of(
        "mine.yaml", "--data", "a=/x y", "--set", "train.steps=3", "--max-steps", "7", "--name", "n"
    )
    assert launch.command[1:] == (
        "fit", "mine.yaml", "--run-folder=runs/n", "--name=n", "--data=a=/x y",
        "--set=train.steps=3", "--max-steps", "7",
    )  # fmt: skip
    assert launch.run_folder == Path("runs/n")


def test_a_run_is_named_like_its_recipe() -> None:
    assert launch_of("vision/simclr").run_folder == Path("runs/simclr")
    assert launch_of("configs/mine.yaml").run_folder == Path("runs/mine")
    assert launch_of("mine.yaml", "--run-folder", "/elsewhere/x").run_folder == Path("/elsewhere/x")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../../etc"])
def test_a_name_that_leaves_its_folder_is_refused(name: str) -> None:
    with pytest.raises(SslScaleError, match="name of one folder"):
        launch_of("demo", f"--name={name}")


HOSTILE = [
    "a b; touch broken",
    "$(touch broken)",
    "`touch broken`",
    'it\'s "so"',
    "-rf",
    "new\nline",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_dry_run_prints_what_a_shell_reads_back_unchanged(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(["local", "demo", "--gpus=0", "--processes=1", f"--name={name}", "--dry-run"])
    words = shlex.split(capsys.readouterr().out)
    assert code == 0
    assert words[words.index("fit") :] == [
        "fit",
        "demo",
        f"--run-folder=runs/{name}",
        f"--name={name}",
    ]
    assert {"RANK=0", "WORLD_SIZE=1", "MASTER_ADDR=127.0.0.1", "GLOO_SOCKET_IFNAME=lo"} < set(words)


def test_cores_are_shared_unless_the_user_has_decided() -> None:
    cores = len(os.sched_getaffinity(0))
    assert launch_of("demo", "--processes=1").environment["OMP_NUM_THREADS"] == str(cores)
    shared = launch_of("demo", f"--processes={cores}").environment
    assert shared["OMP_NUM_THREADS"] == "1"
    decided = launch_of("demo", environment={**CPU, "OMP_NUM_THREADS": "3"}).environment
    assert "OMP_NUM_THREADS" not in decided


def test_tools_beside_our_python_are_found_without_activating_the_environment() -> None:
    tools = str(Path(sys.executable).parent)
    assert launch_of("demo").environment["PATH"].split(os.pathsep)[0] == tools
    active = {**CPU, "PATH": os.pathsep.join((os.defpath, tools))}
    assert "PATH" not in launch_of("demo", environment=active).environment


def test_processes_default_to_the_gpus_and_to_one_without() -> None:
    assert launch_of("demo").processes == 1
    assert launch_of("demo", environment=FOUR_GPUS).processes == 4
    two = launch_of("demo", "--gpus=2", environment=FOUR_GPUS)
    assert (two.processes, two.environment["CUDA_VISIBLE_DEVICES"]) == (2, "4,5")
    named = launch_of("demo", "--gpus=7,5", environment=FOUR_GPUS)
    assert (named.processes, named.environment["CUDA_VISIBLE_DEVICES"]) == (2, "7,5")
    none = launch_of("demo", "--gpus=0", "--processes=3", environment=FOUR_GPUS)
    assert (none.processes, none.environment["CUDA_VISIBLE_DEVICES"]) == (3, "")


@pytest.mark.parametrize("processes", ["0", "-1", "5"])
def test_a_number_of_processes_that_cannot_work_is_refused(processes: str) -> None:
    with pytest.raises(SslScaleError, match=r"--processes must be at .*, but is"):
        launch_of("demo", f"--processes={processes}", environment=FOUR_GPUS)


def test_restarts_that_could_not_continue_the_run_are_refused() -> None:
    with pytest.raises(SslScaleError, match="--max-restarts must be at least 0, but is -1"):
        launch_of("demo", "--max-restarts=-1")
    with pytest.raises(SslScaleError, match="--max-restarts must not be given together with"):
        launch_of("demo", "--max-restarts=1", "--no-resume")
    assert launch_of("demo", "--no-resume").command[-1] == "--no-resume"


@pytest.mark.parametrize("asked", ["5", "two", "0,9", "1,1", "-1"])
def test_gpus_that_are_not_there_are_refused(asked: str) -> None:
    with pytest.raises(SslScaleError, match="--gpus must"):
        choose_gpus(asked, ["0", "1", "2", "3"])


def test_gpus_are_counted_by_the_driver(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 0\necho 1\n")
    program.chmod(0o755)
    assert visible_gpus({"PATH": str(tmp_path)}) == ["0", "1"]
    program.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert visible_gpus({"PATH": str(tmp_path)}) == []
    assert visible_gpus({"PATH": str(tmp_path / "empty")}) == []
    assert visible_gpus({"PATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "-1"}) == []


def test_an_option_before_the_recipe_that_would_swallow_it_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["local", "--max-steps", "10", "demo"])
    assert stopped.value.code == 2
    assert "--max-steps is passed on and must come after RECIPE" in capsys.readouterr().err


def test_errors_are_one_line_without_a_traceback() -> None:
    done = subprocess.run(
        [COMMAND, "local", "demo", "--processes=0"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr == "error: --processes must be at least 1, but is 0\n"
    debugged = subprocess.run(
        [COMMAND, "local", "demo", "--processes=0", "--debug"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert debugged.returncode == 2
    assert "Traceback" in debugged.stderr


def test_help_answers_within_a_second_and_shows_examples() -> None:
    took = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([COMMAND, "local", "--help"], capture_output=True, text=True)
        took.append(time.perf_counter() - began)
        assert done.returncode == 0
        assert "examples:\n  ssl-launch local demo" in done.stdout
    assert min(took) < 1.0


def test_a_recipe_that_does_not_exist_is_said_once_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "local", "--processes=2", "no/such/recipe"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("no/such/recipe") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert [path for path in tmp_path.rglob("*") if path.name != "runs"] == []
