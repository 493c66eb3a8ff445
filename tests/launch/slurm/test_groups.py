"""A chain of three and an array of four on a real Slurm: disturbed, they end as if undisturbed."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from ssl_scale_launch.slurm.client.record import read_launches
from ssl_scale_launch.slurm.sandbox.cluster import SandboxCluster

from tests.launch.slurm.chained import chain_recipes
from tests.launch.slurm.submitted import COMMAND, OVERRIDES, Submitted, assert_equal
from tests.train.tiny import fit_ranks, make_recipe

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

STEPS = 300
SETTINGS = (*OVERRIDES, f"train.steps={STEPS}")
LINKS = ("1-tiny", "2-second", "3-third")


def ask(cluster: SandboxCluster, *words: str) -> str:
    """What one of our commands prints."""
    return cluster.command(COMMAND, *words)


def submit_group(
    cluster: SandboxCluster, folder: Path, *words: str, cwd: Path
) -> dict[str, Submitted]:
    """Submit a chain or a sweep; its runs by name."""
    done = subprocess.run(
        [
            COMMAND, "submit", *words, "--processes-per-node=1", "--time=10",
            f"--run-folder={folder}", *(f"--set={override}" for override in SETTINGS),
        ],
        capture_output=True, text=True, check=False, cwd=cwd,
        env={**cluster.environment, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return runs_of(cluster, folder)


def runs_of(cluster: SandboxCluster, folder: Path) -> dict[str, Submitted]:
    """The runs that were submitted below a folder, each with its last job."""
    found = sorted(path.parent for path in folder.glob("*/launch.json"))
    return {run.name: Submitted(cluster, str(read_launches(run)[-1]["job"]), run) for run in found}


def by_hand(recipes: list[Path], folder: Path) -> list[Path]:
    """The same chain without Slurm, one run after another."""
    first, second, third = (folder / name for name in LINKS)
    bindings = {
        first: (),
        second: (f"paths.previous={first}",),
        third: (f"paths.previous={second}", f"paths.tiny={first}"),
    }
    for recipe, run in zip(recipes, (first, second, third), strict=True):
        assert fit_ranks(recipe, run, 2, *SETTINGS, *bindings[run]) == [0, 0]
    return [first, second, third]


def test_a_chain_that_is_disturbed_ends_as_if_run_by_hand(
    cluster: SandboxCluster, tmp_path: Path
) -> None:
    recipes = chain_recipes(tmp_path)
    folder = tmp_path / "road"
    runs = submit_group(cluster, folder, *map(str, recipes), "--nodes=2", cwd=tmp_path)
    first, second, third = (runs[name] for name in LINKS)
    first.wait_for_step(20)
    cluster.command("scontrol", "requeue", first.job)
    told = ask(cluster, "status", str(folder))
    assert [told.count(f" {run.job}: ") for run in (first, second, third)] == [1, 1, 1]
    assert told.count("PENDING (Dependency)") == 2
    first.must_complete()
    second.wait_for_step(20)
    # The script leaves with 75, after it has gone back to the queue: no failure for what waits.
    cluster.command("scancel", "--batch", "--signal=USR1", second.job)
    second.wait_for("way back", lambda: "restart 1" in second.log)
    assert third.state == "PENDING"
    hands = by_hand(recipes, tmp_path / "hand")
    third.must_complete()
    assert first.attempts > 1 and second.attempts > 1
    for run, hand in zip((first, second, third), hands, strict=True):
        assert_equal(run.folder, hand)
    started = json.loads((third.folder / "warm_start.json").read_text())
    assert started["encoders.image"]["step"] == STEPS
    assert started["encoders.image"]["folder"].startswith(str(second.folder))
    assert started["encoders.text"]["folder"].startswith(str(first.folder))
    with pytest.raises(Exception, match="has none"):
        ask(cluster, "resume", str(folder))


def test_a_cancelled_chain_saves_and_is_resumed_with_new_dependencies(
    cluster: SandboxCluster, tmp_path: Path
) -> None:
    folder = tmp_path / "road"
    recipes = [str(path) for path in chain_recipes(tmp_path)]
    runs = submit_group(cluster, folder, *recipes[:2], "--nodes=1", cwd=tmp_path)
    first, second = runs["1-tiny"], runs["2-second"]
    first.wait_for_step(10)
    ask(cluster, "cancel", str(folder))
    assert [run.wait_for_end() for run in (first, second)] == ["CANCELLED", "CANCELLED"]
    assert "the ranks have stopped after step" in first.log
    # Out of its turn, a link refuses to begin.
    alone = replace(second, job=ask(cluster, "resume", str(second.folder)).strip())
    assert alone.wait_for_end() == "FAILED"
    assert f"starts from {first.folder}, which must be completed, but is not" in alone.log
    jobs = ask(cluster, "resume", str(folder)).split()
    assert len(jobs) == 2 and first.job not in jobs
    told = cluster.command("scontrol", "show", "job", jobs[1])
    assert f"Dependency=afterok:{jobs[0]}" in told
    for run in runs_of(cluster, folder).values():
        run.must_complete()


def test_an_array_of_four_that_is_disturbed_ends_as_if_run_by_hand(
    cluster: SandboxCluster, tmp_path: Path
) -> None:
    recipe = make_recipe(tmp_path)
    folder = tmp_path / "sweep"
    axes = ("--sweep=optim.lr.peak=1e-2,2e-2", "--sweep=train.seed=1,2")
    runs = submit_group(cluster, folder, str(recipe), *axes, cwd=tmp_path)
    assert list(runs) == [
        "0-peak=1e-2-seed=1", "1-peak=1e-2-seed=2", "2-peak=2e-2-seed=1", "3-peak=2e-2-seed=2"
    ]  # fmt: skip
    told_to_stop, left_alone, cancelled, last = runs.values()
    array = last.job.partition("_")[0]
    assert [run.job for run in runs.values()] == [f"{array}_{number}" for number in range(4)]
    # The last task has the number of the whole array: it alone must come back.
    to_stop = ("scancel", "--batch", "--signal=USR1")
    strikes = {
        told_to_stop: (*to_stop, told_to_stop.job),
        last: (*to_stop, last.job),
        cancelled: (COMMAND, "cancel", str(cancelled.folder)),
    }
    # They train side by side, and each must be struck before its end.
    while strikes:
        told_to_stop.wait_for("step 20", lambda: any(run.newest_step >= 20 for run in strikes))
        for run in [run for run in strikes if run.newest_step >= 20]:
            cluster.command(*strikes.pop(run))
    assert cancelled.wait_for_end() == "CANCELLED"
    again = ask(cluster, "resume", str(folder)).strip()
    runs = runs_of(cluster, folder)
    assert [run.job for run in runs.values()] == [
        told_to_stop.job, left_alone.job, f"{again}_2", last.job
    ]  # fmt: skip
    for name, run in runs.items():
        lr, seed = name.split("-peak=")[1].split("-seed=")
        words = (f"optim.lr.peak={lr}", f"train.seed={seed}")
        hand = tmp_path / "hand" / name
        assert fit_ranks(recipe, hand, 1, *SETTINGS, *words) == [0]
        run.must_complete()
        assert_equal(run.folder, hand)
    assert left_alone.attempts == 1
    assert [name for name, run in runs.items() if run.attempts > 1] == [
        run.folder.name for run in (told_to_stop, cancelled, last)
    ]
    told = json.loads(ask(cluster, "results", str(folder), "--json"))
    assert [(row["optim.lr.peak"], row["train.seed"]) for row in told] == [
        ("1e-2", "1"), ("1e-2", "2"), ("2e-2", "1"), ("2e-2", "2")
    ]  # fmt: skip
    assert {row["state"] for row in told} == {"COMPLETED"}
    best = min(told, key=lambda row: row["loss"])
    assert [row["run"] for row in told if row["best"]] == [best["run"]]
