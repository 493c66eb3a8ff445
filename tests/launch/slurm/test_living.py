"""Jobs of a run that are in the queue still: never a second beside one, and all end together."""

from pathlib import Path

import pytest
from ssl_scale_launch import cli
from ssl_scale_launch.slurm.client.record import add_launch, read_launches
from ssl_scale_launch.slurm.watch.story import read_stories

from tests.launch.slurm.chained import chain_recipes
from tests.launch.slurm.fake_slurm import install, let, words_of
from tests.launch.slurm.same_process import ask_here
from tests.train.tiny import make_recipe

RUNS = "5|RUNNING||0|n1||\n6|PENDING||0|||\n7|FAILED||0|||\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_here(monkeypatch)
    monkeypatch.chdir(tmp_path)


def make_run(folder: Path, *jobs: str) -> Path:
    """A run that had these jobs."""
    for folder_of in ("launch", "logs"):
        (folder / folder_of).mkdir(parents=True)
    script = folder / "launch/job-001.sh"
    script.touch()
    for job in jobs:
        add_launch(folder, job, "", script, [], folder)
    return folder


def test_a_run_with_any_job_in_the_queue_gets_no_second_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [str(path) for path in chain_recipes(tmp_path)][:2]
    calls = install(tmp_path / "bin", monkeypatch, sbatch="9\n", squeue=RUNS)
    run = make_run(tmp_path / "runs/one", "5", "7")
    link = make_run(tmp_path / "runs/road/2-second", "6")
    task = make_run(tmp_path / "runs/s/1-seed=2", "5", "7")
    for words, folder, told in (
        (["submit", recipes[0], "--time=60", "--name=one"], run, "job 5"),
        (["resume", str(run)], run, "job 5"),
        (["submit", *recipes, "--time=60", "--name=road"], link, "job 6"),
        (["submit", recipes[0], "--sweep=train.seed=1,2", "--time=60", "--name=s"], task, "job 5"),
    ):
        assert cli.main(words) == 2
        said = capsys.readouterr().err
        assert f"{told} of {folder} must have ended, but is" in said
        assert f"ssl-launch cancel {folder}" in said
    assert not calls.exists() and not (tmp_path / "runs/s/sweep.json").exists()
    assert len(list((tmp_path / "runs").rglob("job-*.sh"))) == 3
    install(tmp_path / "bin", monkeypatch, sbatch="9\n", squeue="5|FAILED||0|||\n7|FAILED||0|||\n")
    assert cli.main(["submit", recipes[0], "--time=60", "--name=one"]) == 0
    assert [entry["job"] for entry in read_launches(run)] == ["5", "7", "9"]


def test_cancel_ends_every_job_of_a_run_and_names_those_that_it_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", "5", "6", "7")
    calls = install(tmp_path / "bin", monkeypatch, squeue=RUNS)
    assert cli.main(["cancel", str(run)]) == 0
    assert words_of(calls, "scancel") == [["6"], ["--batch", "--signal=USR1", "5"]]
    assert sorted(path.name for path in run.glob("launch/cancel-*")) == ["cancel-5", "cancel-6"]
    let(tmp_path / "bin", "scancel", "[[ $1 != 6 ]]")
    capsys.readouterr()
    assert cli.main(["cancel", str(run), "--now"]) == 2
    assert words_of(calls, "scancel")[2:] == [["6"], ["5"]]
    said = capsys.readouterr().err
    assert "job 5 ends" in said
    assert "not all do: scancel failed for job 6; try: scancel 6" in said


def test_a_run_that_cannot_be_told_to_stay_away_is_not_told_to_save(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", "5")
    (run / "launch").rename(run / "away")
    calls = install(tmp_path / "bin", monkeypatch, squeue=RUNS)
    assert cli.main(["cancel", str(run)]) == 2
    assert "job 5 cannot be told to stay away" in capsys.readouterr().err
    assert not calls.exists()
    assert cli.main(["cancel", str(run), "--now"]) == 0
    assert words_of(calls, "scancel") == [["5"]]


def test_a_queue_that_does_not_answer_is_not_taken_for_an_empty_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", "5")
    calls = install(tmp_path / "bin", monkeypatch, sbatch="9\n")
    let(tmp_path / "bin", "squeue", "echo 'slurm_load_jobs error: Socket timed out' >&2; exit 1")
    recipe = str(make_recipe(tmp_path))
    submit = ["submit", recipe, "--time=60"]
    for words in (
        ["cancel", str(run)],
        ["resume", str(run)],
        [*submit, f"--after={run}", "--name=other"],
        [*submit, f"--run-folder={run}"],
    ):
        assert cli.main(words) == 2
        assert "could not be asked: slurm_load_jobs error: Socket" in capsys.readouterr().err
    assert words_of(calls, "squeue") and not words_of(calls, "sbatch")


def test_a_damaged_record_hides_no_other_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "bin", monkeypatch, squeue=RUNS)
    good, bad = make_run(tmp_path / "runs/good", "5"), make_run(tmp_path / "runs/bad", "6")
    (bad / "launch.json").write_text("{")
    first, second = read_stories([bad, good])
    assert (first.state, first.job, second.state) == ("UNKNOWN", None, "RUNNING")
    assert "launch.json: must hold the run's jobs, but is damaged" in first.problem
    assert cli.main(["status", str(bad), str(good)]) == 0
    told = capsys.readouterr().out
    assert f"state      UNKNOWN: {bad}/launch.json: must hold" in told and "5: RUNNING" in told
    assert cli.main(["list", str(tmp_path / "runs")]) == 0
    told_of_all = capsys.readouterr()
    assert "RUNNING" in told_of_all.out
    assert f"ssl-launch: {bad}/launch.json: must hold" in told_of_all.err
