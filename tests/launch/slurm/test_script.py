"""The batch script: what a user gives stays data, in the shell and in Slurm's own lines."""

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest
from ssl_scale_launch.slurm.job.profile import Container
from ssl_scale_launch.slurm.job.script import Job, render

from ssl_scale.errors import SslScaleError

PLAIN = Job(
    run_folder=Path("/runs/first"),
    program=("/venv/bin/ssl-scale", "fit", "mine.yaml"),
    nodes=2,
    processes_per_node=4,
    gpus=4,
    gpu_option="gpus-per-node",
    time="24:00:00",
    stop_before_s=150,
    partition="gpu",
    account=None,
    cpus_per_task=8,
    modules=(),
    variables={},
    tools=None,
    container=None,
    max_restarts=5,
    backoff_s=30,
)
HOSTILE = [
    "$(touch broken)",
    "`touch broken`",
    "'; touch broken; '",
    '"; touch broken; "',
    "a\ntouch broken\n",
    "a\n#SBATCH --wrap=touch",
    "END_OF_RANK_SCRIPT",
    ") touch broken (",
    "${HOME}",
    "*",
    "-rf",
    "\\",
]


def directives(script: str) -> list[str]:
    """The lines that Slurm reads: those before the first command."""
    lines = script.splitlines()[1:]
    head = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    return [line for line in head if line.startswith("#SBATCH")]


def read_back(script: str, shown: str, folder: Path) -> list[str]:
    """What bash understands of the script's head."""
    head, _, _ = script.partition("IFS= read -r -d ''")
    told = subprocess.run(
        ["bash", "-c", f"{head}\nprintf '%s\\0' {shown}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    return told.stdout.split("\0")[:-1]


def test_the_script_asks_slurm_for_what_the_run_needs() -> None:
    assert directives(render(PLAIN)) == [
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --time=24:00:00",
        "#SBATCH --partition=gpu",
        "#SBATCH --signal=B:USR1@150",
        "#SBATCH --open-mode=append",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --requeue",
    ]
    asked = {
        option: directives(render(dataclasses.replace(PLAIN, gpu_option=option)))
        for option in ("gres", "none")
    }
    assert "#SBATCH --gres=gpu:4" in asked["gres"]
    assert not any("gpu:" in line or "gpus" in line for line in asked["none"])


def test_the_script_is_sound_bash(tmp_path: Path) -> None:
    path = tmp_path / "job.sh"
    path.write_text(render(PLAIN))
    subprocess.run(["bash", "-n", str(path)], check=True)
    inner = re.findall(r"<<'END_OF_RANK_SCRIPT'\n(.*?)END_OF_RANK_SCRIPT\n", path.read_text(), re.S)
    subprocess.run(["bash", "-n"], input=inner[0], text=True, check=True)


@pytest.mark.parametrize("value", HOSTILE)
def test_words_reach_the_program_unchanged_and_unexecuted(value: str, tmp_path: Path) -> None:
    program = ("ssl-scale", "fit", value, f"--set={value}")
    container = Container("pyxis", value, (value,))
    job = dataclasses.replace(
        PLAIN, program=program, variables={"GIVEN": value}, container=container
    )
    script = render(job)
    assert directives(script) == directives(render(PLAIN))
    shown = '"${program[@]}" "$GIVEN" "${srun_options[@]}"'
    assert read_back(script, shown, tmp_path) == [
        *program,
        value,
        f"--container-image={value}",
        f"--container-mounts={value}:{value},/runs/first:/runs/first",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value", [value for value in HOSTILE if not value.strip("-").isidentifier()]
)
@pytest.mark.parametrize("name", ["partition", "account", "time"])
def test_what_slurm_would_read_must_be_harmless(name: str, value: str) -> None:
    with pytest.raises(SslScaleError, match=f"--{name} must be made of"):
        render(dataclasses.replace(PLAIN, **{name: value}))


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "a\x1bb"])
def test_a_folder_that_slurm_would_misread_is_refused(name: str) -> None:
    with pytest.raises(SslScaleError, match="printable name without backslashes"):
        render(dataclasses.replace(PLAIN, run_folder=Path("/runs") / name))


def test_modules_are_loaded_by_name_alone(tmp_path: Path) -> None:
    script = render(dataclasses.replace(PLAIN, modules=("cuda/12", "$(touch broken)")))
    script = script.replace("source /etc/profile", "module() { printf '%s\\0' \"$@\"; }")
    assert read_back(script, "end", tmp_path) == [
        "load",
        "cuda/12",
        "load",
        "$(touch broken)",
        "end",
    ]
    assert list(tmp_path.iterdir()) == []


def test_apptainer_runs_the_program_with_the_gpus_and_the_runs_folder(tmp_path: Path) -> None:
    container = Container("apptainer", "/images/a b.sif", ("/data",))
    script = render(dataclasses.replace(PLAIN, container=container))
    assert read_back(script, '"${program[@]}"', tmp_path) == [
        "apptainer", "exec", "--nv", "--bind=/data", "--bind=/runs/first", "/images/a b.sif",
        *PLAIN.program,
    ]  # fmt: skip
