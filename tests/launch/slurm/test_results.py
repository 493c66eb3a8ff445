"""``ssl-launch results``: runs side by side, the best one marked."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from ssl_scale_launch import cli
from ssl_scale_launch.slurm.groups.sweep import Axis, Sweep, tasks_of, write_sweep
from ssl_scale_launch.slurm.watch.figures import read_figure

from tests.launch.slurm.fake_slurm import install

Line = Mapping[str, object]


def write_metrics(run: Path, lines: Sequence[Line]) -> None:
    run.mkdir(exist_ok=True)
    text = "\n".join(json.dumps({"attempt": 1, "time": 1.0, **line}) for line in lines)
    (run / "metrics.jsonl").write_text(text + '\n{"kind": "tra')


def trained(step: int, loss: float | None) -> Line:
    return {"kind": "train", "step": step, "loss": loss}


def validated(step: int, accuracy: float) -> Line:
    return {"kind": "validation", "step": step, "held_out/accuracy": accuracy}


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four runs: the third has begun twice, the last not at all; one key has a single value."""
    folder = tmp_path / "sweep"
    folder.mkdir()
    install(tmp_path / "bin", monkeypatch)
    axes = [Axis("optim.lr", ("1", "2")), Axis("a.b", ("x",)), Axis("train.seed", ("7", "8"))]
    tasks = tasks_of(axes)
    write_sweep(folder, Sweep("mine.yaml", tuple(axis.key for axis in axes), tasks, None))
    lines = [
        [trained(1, 0.5), validated(1, 0.8), trained(2, 0.9), validated(2, 0.6)],
        [trained(1, 0.7), trained(2, 0.3), validated(2, 0.7)],
        [
            trained(1, 0.6), validated(1, 0.5), trained(2, 0.1), validated(2, 0.9),
            {"kind": "superseded", "after_step": 1, "attempt": 2}, trained(2, None),
        ],
    ]  # fmt: skip
    for task, of_run in zip(tasks[:3], lines, strict=True):
        write_metrics(folder / task.name, of_run)
    (folder / tasks[3].name).mkdir()
    (folder / tasks[0].name / "COMPLETED").touch()
    return folder


def rows(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, str]]:
    assert cli.main(["results", *words, "--csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_runs_are_listed_in_their_order_with_what_was_varied(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = rows(capsys, str(sweep))
    assert list(told[0]) == [
        "run", "optim.lr", "train.seed", "state", "step", "loss", "best loss", "at step", "best"
    ]  # fmt: skip
    assert [(row["optim.lr"], row["train.seed"]) for row in told] == [
        ("1", "7"), ("1", "8"), ("2", "7"), ("2", "8")
    ]  # fmt: skip
    assert told[0]["state"] == "COMPLETED"
    # Of training the newest value counts; one that is not finite is never best.
    assert [row["loss"] for row in told] == ["0.9", "0.3", "", ""]
    assert [row["best"] for row in told] == ["", "*", "", ""]


def test_of_a_held_out_figure_the_best_counts_without_what_a_restart_made_void(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = rows(capsys, str(sweep), "--metric=-held_out/accuracy")
    assert [row["best held_out/accuracy"] for row in told] == ["0.8", "0.7", "0.5", ""]
    assert [row["at step"] for row in told] == ["1", "2", "1", ""]
    assert [row["best"] for row in told] == ["*", "", "", ""]
    lower = rows(capsys, str(sweep), "--metric=held_out/accuracy", "--sort")
    assert [row["best held_out/accuracy"] for row in lower] == ["0.5", "0.6", "0.7", ""]


def test_the_recipes_own_figure_is_taken_unless_told(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = next(path for path in sorted(sweep.iterdir()) if path.is_dir())
    (run / "recipe.yaml").write_text("train: {best: -held_out/accuracy}\n")
    assert rows(capsys, str(sweep))[0]["best held_out/accuracy"] == "0.8"


def test_json_and_the_table_tell_the_same(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["results", str(sweep), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["loss"] for row in told] == [0.9, 0.3, None, None]
    assert cli.main(["results", str(sweep), "--sort"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:4] == ["run", "optim.lr", "train.seed", "state"]
    assert table[1].startswith("1-lr=1-b=x-seed=8") and table[1].endswith("*")


def test_an_unknown_figure_and_another_folder_are_told(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["results", str(sweep), "--metric=held_out/acuracy"]) == 2
    assert "none has 'held_out/acuracy'; there is held_out/accuracy" in capsys.readouterr().err
    assert cli.main(["results", str(sweep.parent)]) == 2
    assert "must be the folder of a sweep or a chain" in capsys.readouterr().err


def test_a_run_without_metrics_has_no_figure(tmp_path: Path) -> None:
    assert read_figure(tmp_path, "loss", is_higher_better=False) is None
