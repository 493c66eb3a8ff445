"""Chains before they reach Slurm: links, what they are bound to, what is refused and printed."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from ssl_scale_launch import cli
from ssl_scale_launch.slurm.client.record import add_launch, read_launches
from ssl_scale_launch.slurm.groups.dependencies import afterok, jobs_meant_by, without_dependencies
from ssl_scale_launch.slurm.groups.groups import members, runs_in
from ssl_scale_launch.slurm.groups.links import (
    Link,
    chain_of,
    name_of_chain,
    read_links,
    write_links,
)

from ssl_scale.errors import SslScaleError
from tests.launch.slurm.chained import chain_recipes
from tests.launch.slurm.fake_slurm import install
from tests.launch.slurm.same_process import ask_here

OPTIONS = ("--time=60", "--name=road")


@pytest.fixture(autouse=True)
def _same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ask_here(monkeypatch)


def test_each_link_waits_for_the_one_before_and_may_start_from_any_before() -> None:
    links = chain_of(["vision/mae", "b.yaml", "c.yaml"])
    assert links == [
        Link("1-mae", "vision/mae", (), {}),
        Link("2-b", "b.yaml", ("1-mae",), {"mae": "1-mae", "previous": "1-mae"}),
        Link("3-c", "c.yaml", ("2-b",), {"mae": "1-mae", "b": "2-b", "previous": "2-b"}),
    ]
    assert name_of_chain(links) == "mae-b-c"
    assert name_of_chain(chain_of(["a" * 40, "b" * 40])) == "a" * 40
    twice = chain_of(["x/a.yaml", "y/a.yaml", "b.yaml"])
    assert twice[2].bindings == {"a": "2-a", "previous": "2-a"}


def test_a_graph_is_kept_and_read_again(tmp_path: Path) -> None:
    graph = [
        Link("teacher", "t.yaml", (), {}),
        Link("student", "s.yaml", (), {}),
        Link("both", "b.yaml", ("teacher", "student"), {"t": "teacher"}),
    ]
    write_links(tmp_path, graph)
    assert read_links(tmp_path) == graph
    assert members(tmp_path) == [tmp_path / name for name in ("teacher", "student", "both")]
    assert runs_in([tmp_path / "x", tmp_path]) == [tmp_path / "x", *members(tmp_path)]
    assert read_links(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("links", "told"),
    [
        ([Link("a", "a", ("b",), {}), Link("b", "b", (), {})], "a must come after the links"),
        ([Link("a", "a", (), {}), Link("a", "b", (), {})], "different names"),
        ([Link("../a", "a", (), {})], "that of one folder"),
        ([Link("a", "a", (), {"x": "c"})], "needs 'c'"),
    ],
)
def test_links_that_cannot_run_in_their_order_are_refused(
    links: list[Link], told: str, tmp_path: Path
) -> None:
    with pytest.raises(SslScaleError, match=told):
        write_links(tmp_path, links)
    (tmp_path / "chain.json").write_text(
        json.dumps({"links": [{**vars(link), "after": list(link.after)} for link in links]})
    )
    with pytest.raises(SslScaleError, match=r"chain.json: must hold .* is damaged"):
        members(tmp_path)


def test_what_a_job_waits_for_is_an_option_that_can_be_taken_away_again() -> None:
    waits = ["--dependency=afterok:7:8_1", "--kill-on-invalid-dep=yes"]
    assert afterok(["7", "8_1"]) == waits
    assert afterok([]) == []
    assert without_dependencies(["--exclusive", *waits]) == ["--exclusive"]


def test_after_may_name_the_folder_of_a_run_or_a_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_links(tmp_path, [Link("1-a", "a", (), {}), Link("2-b", "b", ("1-a",), {})])
    for number, name in ((5, "1-a"), (6, "2-b")):
        (tmp_path / name).mkdir()
        add_launch(tmp_path / name, str(number), "", tmp_path / "job.sh", [], tmp_path)
    install(tmp_path / "bin", monkeypatch, squeue="5|RUNNING|None|0|n1|\n6|PENDING||0||\n")
    assert jobs_meant_by("12_3") == ["12_3"]
    assert jobs_meant_by(str(tmp_path)) == ["5", "6"]
    (tmp_path / "1-a/COMPLETED").touch()
    assert jobs_meant_by(str(tmp_path)) == ["6"]
    assert jobs_meant_by(str(tmp_path / "1-a")) == []
    install(tmp_path / "bin", monkeypatch, squeue="6|CANCELLED||0||\n")
    with pytest.raises(SslScaleError, match="job 6 is CANCELLED; resume it first"):
        jobs_meant_by(str(tmp_path))


def dry_run(folder: Path, *more: str) -> int:
    recipes = [str(path) for path in chain_recipes(folder)]
    return cli.main(["submit", *recipes, *OPTIONS, "--dry-run", *more])


def test_a_dry_run_prints_every_links_script_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert dry_run(tmp_path, "--", "--comment=$(touch broken)") == 0
    shown = capsys.readouterr()
    subprocess.run(["bash", "-n"], input=shown.out, text=True, check=True)
    runs = tmp_path / "runs/road"
    folders = re.findall(r"^run_folder=(.*)$", shown.out, re.M)
    assert folders == [f"{runs}/{name}" for name in ("1-tiny", "2-second", "3-third")]
    assert re.findall(r"^    --data=.*$", shown.out, re.M) == [
        f"    --data=previous={runs}/1-tiny",
        f"    --data=tiny={runs}/1-tiny",
        f"    --data=previous={runs}/2-second",
    ]
    heads = shown.out.split("earlier=(")[1:]
    assert [re.findall(r"^    (.*)$", head.partition(")")[0], re.M) for head in heads] == [
        [], [f"{runs}/1-tiny"], [f"{runs}/2-second", f"{runs}/1-tiny"]
    ]  # fmt: skip
    assert shown.err.count("--dependency=afterok:JOB-OF-") == 2
    assert "'--comment=$(touch broken)'" in shown.err
    assert not runs.exists() and not (tmp_path / "broken").exists()


def test_bindings_go_to_the_links_that_name_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert dry_run(tmp_path, f"--data=extra={tmp_path}/pictures") == 0
    scripts = capsys.readouterr().out.split("#!/bin/bash")[1:]
    assert ["--data=extra=" in script for script in scripts] == [False, True, False]
    assert dry_run(tmp_path, "--data=nowhere=/x") == 2
    assert "none of them names 'nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ("[encoders.vision]", "3-third: .*parts\\[0\\]: must be encoders.NAME"),
        ("[objectives.byol.projektor]", "3-third: init_from\\[1\\]: .*has no 'projektor'"),
        (
            "[encoders.image], rename: {encoders.image: heads.x}",
            "3-third: init_from\\[1\\]: the recipe of 2-second must hold heads.x",
        ),
    ],
)
def test_a_part_that_an_earlier_recipe_has_not_is_told_before_anything_is_queued(
    parts: str,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    third = chain_recipes(tmp_path)[2]
    third.write_text(third.read_text().replace("[encoders.image]", parts))
    recipes = [str(tmp_path / name) for name in ("tiny.yaml", "second.yaml", "third.yaml")]
    install(tmp_path / "bin", monkeypatch, sbatch="1\n")
    assert cli.main(["submit", *recipes, *OPTIONS]) == 2
    assert re.search(told, capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


def test_links_before_one_that_slurm_refuses_are_cancelled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    calls = install(tmp_path / "bin", monkeypatch, sbatch="41\n", fails_at=3)
    recipes = [str(path) for path in chain_recipes(tmp_path)]
    assert cli.main(["submit", *recipes, *OPTIONS]) == 2
    said = capsys.readouterr().err
    assert "3-third: sbatch must accept the job, but says: no more" in said
    assert "jobs submitted before were cancelled again: 41, 41" in said
    words = [line.split("\0") for line in calls.read_text().splitlines()]
    assert [call[0] for call in words] == ["sbatch", "sbatch", "sbatch", "scancel", "scancel"]
    assert "--dependency=afterok:41" in words[1]
    first = tmp_path / "runs/road/1-tiny"
    assert (first / "launch/cancel-41").exists() and len(read_launches(first)) == 1
    assert not list((tmp_path / "runs/road/3-third/launch").iterdir())


def test_another_chain_does_not_take_the_same_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/road").mkdir(parents=True)
    write_links(tmp_path / "runs/road", [Link("1-other", "a", (), {})])
    install(tmp_path / "bin", monkeypatch, sbatch="1\n")
    recipes = [str(path) for path in chain_recipes(tmp_path)]
    assert cli.main(["submit", *recipes, *OPTIONS]) == 2
    assert "but holds other runs (1-other, ...)" in capsys.readouterr().err
    assert cli.main(["submit", recipes[0], *OPTIONS]) == 2
    assert "must be a run's folder, but holds several" in capsys.readouterr().err


def test_options_before_the_recipes_are_not_taken_for_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["submit", "--constraint", "a100", "a.yaml", "--time=1"])
    assert "--constraint is passed on and must come after RECIPE" in capsys.readouterr().err
    assert cli.main(["submit", "a.yaml", "--time=60", "b.yaml", "--dry-run"]) == 2
    assert "'b.yaml'; recipes stand together" in capsys.readouterr().err
