"""``ssl-launch status`` and ``cancel``, where there is no Slurm to ask."""

import json
from pathlib import Path

import pytest
from ssl_scale_launch import cli
from ssl_scale_launch.slurm.client.record import add_launch
from ssl_scale_launch.slurm.watch.progress import read_progress


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    lines = [{"kind": "train", "step": step, "loss": 1 / step} for step in (1, 2)]
    text = "\n".join(map(json.dumps, lines)) + '\n{"kind": "train", "st'
    (tmp_path / "metrics.jsonl").write_text(text)
    for step, total in ((1, 90), (2, 100)):
        commit = tmp_path / f"checkpoints/step-{step:09d}/COMMIT"
        commit.parent.mkdir(parents=True)
        commit.write_text(json.dumps({"state": {"total": total}}))
    (tmp_path / "environment.json").write_text(json.dumps({"attempts": [{}, {}, {}]}))
    (tmp_path / "logs").mkdir()
    said = "ssl-launch: one\nssl-launch: two\nsrun: three\n"
    (tmp_path / "logs/slurm-1.log").write_text(said)
    add_launch(tmp_path, "1", "", tmp_path / "job-001.sh", [], tmp_path)
    return tmp_path


def test_a_runs_folder_tells_how_far_it_is(run_folder: Path) -> None:
    progress = read_progress(run_folder)
    assert (progress.step, progress.total, progress.loss, progress.attempts) == (2, 100, 0.5, 3)
    assert progress.said == "two"
    assert not progress.is_completed


def test_an_empty_folder_tells_that_nothing_has_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", str(tmp_path)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[1:] == ["  state      WAITING", "  progress   step 0; started 0 times"]


def test_a_run_that_slurm_has_forgotten_is_told_from_its_folder(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(run_folder / "none"))
    monkeypatch.setattr("ssl_scale_launch.slurm.client.packages.SYSTEM_PATHS", ())
    monkeypatch.setenv("PATH", str(run_folder))
    (run_folder / "COMPLETED").write_text("2\n")
    assert cli.main(["status", str(run_folder)]) == 0
    told = capsys.readouterr().out
    assert "state      COMPLETED" in told
    assert "1: Slurm could not be asked" in told
    assert "step 2 of 100 (2%), loss 0.5; started 3 times" in told
    assert "last said  two" in told
    assert cli.main(["cancel", str(run_folder)]) == 2
    assert "could not be asked: squeue is not installed here" in capsys.readouterr().err
    assert cli.main(["resume", str(run_folder)]) == 2
    assert list((run_folder / "logs").iterdir()) == [run_folder / "logs/slurm-1.log"]


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", str(tmp_path / "none")]) == 2
    assert cli.main(["cancel", str(tmp_path)]) == 2
    assert "must be a run that was submitted" in capsys.readouterr().err


def test_a_completed_run_is_not_resumed(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in ("sbatch", "srun", "scontrol", "squeue", "scancel"):
        (run_folder / program).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(run_folder))
    (run_folder / "COMPLETED").write_text("2\n")
    assert cli.main(["resume", str(run_folder)]) == 2
    assert "it is completed" in capsys.readouterr().err
