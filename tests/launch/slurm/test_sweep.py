"""Sweeps before they reach Slurm: values, combinations, names, the array's script, refusals."""

import re
import subprocess
from pathlib import Path

import pytest
from ssl_scale_launch import cli
from ssl_scale_launch.slurm.client.record import ARRAYS, read_launches
from ssl_scale_launch.slurm.groups.groups import members
from ssl_scale_launch.slurm.groups.sweep import (
    MOST_TASKS,
    Axis,
    Sweep,
    Task,
    read_axis,
    read_sweep,
    tasks_of,
    write_sweep,
)
from ssl_scale_launch.slurm.job.array_script import render_array

from ssl_scale.errors import SslScaleError
from tests.launch.slurm.fake_slurm import install
from tests.launch.slurm.same_process import ask_here
from tests.launch.slurm.test_script import HOSTILE, PLAIN, directives
from tests.train.tiny import make_recipe


@pytest.fixture(autouse=True)
def _same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ask_here(monkeypatch)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.b=1,2,4", ("1", "2", "4")),
        ("a.b=0.5, 1e-3", ("0.5", "1e-3")),
        ("a.b=[1, 2],[3],[]", ("[1, 2]", "[3]", "[]")),
        ("a.b={type: Cosine, start: 1},0.1", ("{type: Cosine, start: 1}", "0.1")),
        ("a.b='x,y',\"z\"", ("'x,y'", '"z"')),
        ("a.b=null,true", ("null", "true")),
        ("a.b=$(touch broken),`x`", None),
        ("a.b=$(touch broken),x;y", ("$(touch broken)", "x;y")),
    ],
)
def test_values_are_cut_as_yaml_cuts_them_and_not_read(
    text: str, values: tuple[str, ...] | None
) -> None:
    if values is None:  # YAML keeps that letter for later
        with pytest.raises(SslScaleError, match="put quotes around"):
            read_axis(text)
    else:
        assert read_axis(text) == Axis("a.b", values)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a.b", "must read path.to.key=value"),
        ("=1", "must read path.to.key=value"),
        ("a..b=1", "must read path.to.key=value"),
        ("a=", "at least one value"),
        ("a=1,,2", "values in YAML notation"),
        ("a=1],[2", "values in YAML notation"),
        ("a=1,2 # three", "values in YAML notation"),
        ("a=&x [1],*x", "without aliases"),
        ("a=1,2,1", "different values"),
    ],
)
def test_values_that_cannot_be_told_apart_are_refused(text: str, told: str) -> None:
    with pytest.raises(SslScaleError, match=told):
        read_axis(text)


def test_all_combinations_become_tasks_with_harmless_names() -> None:
    tasks = tasks_of(
        [
            Axis(
                "optim.lr",
                ("1e-3", "$(x)/.."),
            ),
            Axis("train.seed", ("1", "2")),
        ]
    )
    assert tasks == (
        Task("0-lr=1e-3-seed=1", ("optim.lr=1e-3", "train.seed=1")),
        Task("1-lr=1e-3-seed=2", ("optim.lr=1e-3", "train.seed=2")),
        Task("2-lr=_x_..-seed=1", ("optim.lr=$(x)/..", "train.seed=1")),
        Task("3-lr=_x_..-seed=2", ("optim.lr=$(x)/..", "train.seed=2")),
    )
    many = tasks_of([Axis("train.seed", tuple(map(str, range(MOST_TASKS))))])
    assert (many[0].name, many[-1].name) == ("000-seed=0", "999-seed=999")
    long = tasks_of([Axis("a", ("x" * 300,))])
    assert len(long[0].name) < 100


def test_too_many_tasks_and_a_key_named_twice_are_refused() -> None:
    half = Axis("a", tuple(map(str, range(MOST_TASKS // 2 + 1))))
    with pytest.raises(SslScaleError, match="at most 1000 runs, but makes 1002"):
        tasks_of([half, Axis("b", ("1", "2"))])
    with pytest.raises(SslScaleError, match="names a twice"):
        tasks_of([Axis("a", ("1",)), Axis("a", ("2",))])


def test_a_sweep_is_kept_and_asks_for_some_of_its_tasks(tmp_path: Path) -> None:
    sweep = Sweep("mine.yaml", ("a",), tasks_of([Axis("a", tuple("123456"))]), 2)
    write_sweep(tmp_path, sweep)
    assert read_sweep(tmp_path) == sweep
    assert members(tmp_path) == [tmp_path / f"{number}-a={number + 1}" for number in range(6)]
    assert sweep.array([0, 1, 2, 5]) == "--array=0-2,5%2"
    assert Sweep("m", ("a",), sweep.tasks, None).array(range(6)) == "--array=0-5"
    (tmp_path / "sweep.json").write_text('{"tasks": [{"name": "..", "overrides": []}]}')
    with pytest.raises(SslScaleError, match="sweep.json: must hold .* is damaged"):
        members(tmp_path)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    "value", [word for word in HOSTILE if "\n" not in word and "\\" not in word]
)
def test_a_task_runs_its_own_script_whatever_its_folder_is_called(
    value: str, number: int, tmp_path: Path
) -> None:
    scripts = []
    for own in range(2):
        path = tmp_path / f"runs {value.replace('/', '_')}" / str(own) / "launch" / "job-001.sh"
        path.parent.mkdir(parents=True)
        (path.parent.parent / "logs").mkdir()
        path.write_text(f"echo this is {own}, $1\n")
        scripts.append(path)
    before = sorted(tmp_path.rglob("*"))
    script = render_array(PLAIN, scripts)
    assert directives(script) == directives(render_array(PLAIN, []))
    variables = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(number), "PATH": "/bin"}
    done = subprocess.run(
        ["bash", "-c", script], env=variables, cwd=tmp_path, check=True, capture_output=True
    )
    log = scripts[number].parent.parent / "logs" / f"slurm-7_{number}.log"
    assert log.read_text() == f"this is {number}, 7_{number}\n"
    assert done.stdout == done.stderr == b""
    assert sorted(tmp_path.rglob("*")) == sorted([*before, log])


def submit(folder: Path, *words: str) -> int:
    return cli.main(["submit", "--time=60", "--name=s", str(make_recipe(folder)), *words])


def test_a_dry_run_prints_all_scripts_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert submit(tmp_path, "--sweep=train.seed=1,2", "--at-once=1", "--dry-run") == 0
    shown = capsys.readouterr()
    subprocess.run(["bash", "-n"], input=shown.out, text=True, check=True)
    assert re.findall(r"^    --set=(.*)$", shown.out, re.M) == ["train.seed=1", "train.seed=2"]
    assert re.findall(r"^    /.*/runs/s/(.*)/launch/job-001.sh$", shown.out, re.M) == [
        "0-seed=1", "1-seed=2"
    ]  # fmt: skip
    assert "--array=0-1%1" in shown.err and "slurm-%A_%a.log" in shown.err
    assert not (tmp_path / "runs").exists()


def test_each_task_is_on_record_as_a_run_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    calls = install(tmp_path / "bin", monkeypatch, sbatch="9\n")
    assert submit(tmp_path, "--sweep=train.seed=1,2", "--set=train.steps=3") == 0
    folder = tmp_path / "runs/s"
    [call] = calls.read_text().splitlines()
    assert "--array=0-1" in call.split("\0")
    for number, run in enumerate(members(folder)):
        [launch] = read_launches(run)
        assert launch["job"] == f"9_{number}" and "--array=0-1" in launch["command"]
        assert not any("array" in word for word in launch["options"])
        script = (run / "launch" / launch["script"]).read_text()
        assert f"run_folder={run}\n" in script and f"    --set=train.seed={number + 1}\n" in script
    assert read_launches(folder) == [] and len(read_launches(folder, ARRAYS)) == 1
    (members(folder)[0] / "COMPLETED").touch()
    install(tmp_path / "bin", monkeypatch, sbatch="12\n", squeue="9_1|FAILED||0||\n")
    assert cli.main(["resume", str(folder)]) == 0
    assert "--array=1" in calls.read_text().splitlines()[1].split("\0")
    assert [read_launches(run)[-1]["job"] for run in members(folder)] == ["9_0", "12_1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--sweep=train.seed=1,2,no",), "with train.seed=no: --set train.seed: "),
        (("--sweep=train.sed=1,2",), "with train.sed=1: .*did you mean 'seed'"),
        (("--sweep=train.seed=1", "--at-once=0"), "--at-once must be at least 1"),
        (("--at-once=2",), "--at-once is about the runs of a --sweep"),
        (("other.yaml", "--sweep=train.seed=1"), "--sweep takes one recipe, but there are 2"),
        (("--sweep=train.seed=1", "--", "--array=1"), "say it with --sweep"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_queued(
    words: tuple[str, ...],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    calls = install(tmp_path / "bin", monkeypatch, sbatch="9\n")
    assert submit(tmp_path, *words) == 2
    assert re.search(told, capsys.readouterr().err)
    assert not calls.exists() and not (tmp_path / "runs").exists()
