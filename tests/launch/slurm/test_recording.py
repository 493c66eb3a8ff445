"""What becomes of a job that Slurm took but that is not on record, or that it did not take."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from ssl_scale_launch import cli
from ssl_scale_launch.slurm.client import sbatch as handing
from ssl_scale_launch.slurm.client.command import slurm_environment
from ssl_scale_launch.slurm.client.ending import take_back, will_not_come_back
from ssl_scale_launch.slurm.client.record import ARRAYS, add_launch, read_launches
from ssl_scale_launch.slurm.client.sbatch import Refused, hand_over, sbatch
from ssl_scale_launch.slurm.groups.groups import members, refuse_other_group
from ssl_scale_launch.slurm.groups.links import chain_of, write_links
from ssl_scale_launch.slurm.groups.sweep import Sweep, Task, write_sweep
from ssl_scale_launch.slurm.sandbox.config import Layout, slurm_configuration
from ssl_scale_launch.slurm.submitting.kept_scripts import keep_script
from ssl_scale_launch.slurm.submitting.passed_on import passed_to_sbatch

from ssl_scale.errors import SslScaleError
from tests.launch.slurm.chained import chain_recipes
from tests.launch.slurm.fake_slurm import install, let, words_of
from tests.launch.slurm.same_process import ask_here
from tests.train.tiny import make_recipe


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_here(monkeypatch)
    monkeypatch.chdir(tmp_path)


def submit(folder: Path, *words: str) -> int:
    return cli.main(["submit", str(make_recipe(folder)), "--time=60", "--name=s", *words])


def test_a_damaged_record_is_told_before_anything_is_queued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = install(tmp_path / "bin", monkeypatch, sbatch="9\n")
    run = tmp_path / "runs/s"
    run.mkdir(parents=True)
    (run / "launch.json").write_text("{")
    with pytest.raises(SslScaleError, match="damaged"):
        sbatch(run, run / "x.sh", [], tmp_path)
    assert submit(tmp_path) == 2
    assert "launch.json: must hold the run's jobs, but is damaged" in capsys.readouterr().err
    assert not calls.exists()


def test_a_job_that_cannot_be_recorded_is_cancelled_or_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bin = tmp_path / "bin"
    calls = install(bin, monkeypatch)
    record = tmp_path / "runs/s/launch.json"
    let(bin, "sbatch", f"echo '{{' >{record}; echo 41")
    assert submit(tmp_path) == 2
    assert "but is damaged" in (said := capsys.readouterr().err)
    assert "job 41 was cancelled again" in said
    assert words_of(calls, "scancel") == [["41"]]
    assert (record.parent / "launch/job-001.sh").exists()
    record.unlink()
    let(bin, "scancel", "exit 1")
    assert submit(tmp_path) == 2
    assert "job 41 is queued, and scancel failed; cancel it: scancel 41" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_whatever_ends_the_recording_the_job_is_cancelled(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = install(tmp_path / "bin", monkeypatch, sbatch="41\n")

    def fail(*_: object) -> None:
        raise error("no room")

    monkeypatch.setattr(handing, "add_launch", fail)
    with pytest.raises(SslScaleError if error is OSError else error, match="no room"):
        sbatch(tmp_path, tmp_path / "x.sh", [], tmp_path)
    assert words_of(calls, "scancel") == [["41"]]


def test_a_sweep_that_is_recorded_in_part_is_cancelled_and_can_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bin, folder = tmp_path / "bin", tmp_path / "runs/s"
    calls = install(bin, monkeypatch)
    record = folder / "1-seed=2/launch.json"
    let(bin, "sbatch", f"echo '{{' >{record}; echo '9;here'")
    words = ("--sweep=train.seed=1,2", "--", "--comment=x")
    assert submit(tmp_path, *words) == 2
    assert "job 9 was cancelled again" in capsys.readouterr().err
    assert words_of(calls, "scancel") == [["9"]]
    record.unlink()
    let(bin, "sbatch", "echo 12")
    assert cli.main(["resume", str(folder)]) == 0
    first, second = members(folder)
    assert [entry["job"] for entry in read_launches(first)] == ["9_0", "12_0"]
    [launch] = read_launches(second)
    assert (launch["job"], launch["script"]) == ("12_1", "job-001.sh")
    assert launch["options"] == [
        "--job-name=1-seed_2", f"--output={second}/logs/slurm-%j.log", "--comment=x"
    ]  # fmt: skip
    # A record that is damaged is told first.
    record.write_text("{")
    before = len(words_of(calls, "sbatch"))
    assert cli.main(["resume", str(folder)]) == 2
    assert submit(tmp_path, *words) == 2
    assert len(words_of(calls, "sbatch")) == before


def test_a_sweep_that_slurm_refuses_leaves_its_folder_to_a_corrected_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "bin", monkeypatch, sbatch="9\n", fails_at=1)
    folder = tmp_path / "runs/s"
    assert submit(tmp_path, "--sweep=train.seed=1,2") == 2
    assert "sbatch must accept the job, but says: no more" in capsys.readouterr().err
    assert not (folder / "sweep.json").exists() and not list(folder.rglob("job-*.sh"))
    assert submit(tmp_path, "--sweep=train.seed=3,4") == 0
    assert [entry["job"] for entry in read_launches(folder, ARRAYS)] == ["9"]


def test_a_chain_whose_first_link_is_refused_leaves_its_folder_to_a_corrected_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "bin", monkeypatch, sbatch="9\n", fails_at=1)
    recipes = [str(path) for path in chain_recipes(tmp_path)]
    assert cli.main(["submit", *recipes, "--time=60", "--name=road"]) == 2
    assert not (tmp_path / "runs/road/chain.json").exists()
    assert cli.main(["submit", *recipes[:2], "--time=60", "--name=road"]) == 0


def test_runs_of_the_same_names_but_of_other_recipes_or_values_are_refused(tmp_path: Path) -> None:
    told = "but holds runs of these names, but of other recipes or values"
    tasks = (Task("0-x=_a", ("x=[a]",)), Task("1-x=b", ("x=b",)))
    sweep = Sweep("mine.yaml", ("x",), tasks, None)
    for name in "sc":
        (tmp_path / name).mkdir()
    write_sweep(tmp_path / "s", sweep)
    refuse_other_group(tmp_path / "s", replace(sweep, recipe="./mine.yaml", at_once=2))
    others = (Task("0-x=_a", ("x={a: 1}",)), tasks[1])
    for other in (replace(sweep, tasks=others), replace(sweep, recipe="other/mine.yaml")):
        with pytest.raises(SslScaleError, match=told):
            refuse_other_group(tmp_path / "s", other)
    write_links(tmp_path / "c", chain_of(["a.yaml", "b.yaml"]))
    refuse_other_group(tmp_path / "c", chain_of(["a.yaml", "b.yaml"]))
    with pytest.raises(SslScaleError, match=told):
        refuse_other_group(tmp_path / "c", chain_of(["a.yaml", "other/b.yaml"]))
    with pytest.raises(SslScaleError, match="but holds other runs \\(1-a, 2-b, ...\\)"):
        refuse_other_group(tmp_path / "c", sweep)


def test_only_a_number_is_taken_for_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin = tmp_path / "bin"
    install(bin, monkeypatch)
    script = keep_script(tmp_path / "run", "#!/bin/bash\n")
    let(bin, "sbatch", "echo '41;here'")
    assert (accepted := hand_over(script, [], tmp_path)).job == "41" and accepted.cluster == "here"
    for odd in ("", "Submitted batch job 41", "41;", "-1", "allocation 41\n41"):
        let(bin, "sbatch", f"echo '{odd}'")
        with pytest.raises(SslScaleError, match="must tell the job's number alone") as told:
            hand_over(script, [], tmp_path)
        assert not isinstance(told.value, Refused)
    monkeypatch.setattr(handing, "SUBMITS_S", 0.2)
    let(bin, "sbatch", "exec sleep 30")
    with pytest.raises(SslScaleError, match="within 0.2 s, but did not; look whether") as told:
        hand_over(script, [], tmp_path)
    assert not isinstance(told.value, Refused)
    (bin / "sbatch").unlink()
    monkeypatch.setenv("PATH", str(bin))
    monkeypatch.setattr("ssl_scale_launch.slurm.client.packages.SYSTEM_PATHS", ())
    with pytest.raises(Refused, match="sbatch is not installed here"):
        hand_over(script, [], tmp_path)


def test_a_surrounding_job_decides_nothing_and_the_users_variables_are_inherited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bin = tmp_path / "bin"
    install(bin, monkeypatch)
    theirs = {
        "SLURM_CONF": "/x", "SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SBATCH_TIMELIMIT": "1",
        "SRUN_CPUS_PER_TASK": "2", "SCANCEL_STATE": "PENDING", "SQUEUE_USERS": "me",
        "HF_TOKEN_FILE": "/y", "SBATCH_QOS": "long",
    }  # fmt: skip
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    let(bin, "sbatch", f"env >{tmp_path}/variables; echo 41")
    hand_over(tmp_path / "x.sh", [], tmp_path)
    seen = dict(line.split("=", 1) for line in (tmp_path / "variables").read_text().splitlines())
    assert theirs.keys() & seen.keys() == {"SLURM_CONF", "HF_TOKEN_FILE", "SBATCH_QOS"}
    assert seen["PATH"].startswith(os.environ["PATH"]) and "/usr/sbin" in seen["PATH"]
    assert "SBATCH_TIMELIMIT would go before the script's own lines" in capsys.readouterr().err
    theirs["SLURM_JWT"] = "x"
    ours = slurm_environment(theirs, tmp_path / "slurm.conf")
    assert {name for name in ours if name.startswith("SLURM")} == {"SLURM_CONF"}
    assert ours["SLURM_CONF"] == str(tmp_path / "slurm.conf")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--wait", "ssl-launch status RUN --watch"), ("-W", "ssl-launch status RUN --watch"),
        ("--test-only", "--dry-run"), ("--tes", "--dry-run"), ("--signal=B:INT@5", "--stop-before"),
        ("--no-requeue", "--max-restarts=0"), ("--output=x", "--run-folder"),
        ("-ox", "--run-folder"), ("--error=x", "--run-folder"),
        ("--nodes=3", "--nodes before --"), ("-N3", "--nodes before --"),
        ("--ntasks=3", "--processes-per-node"), ("-n3", "--processes-per-node"),
        ("--ntasks-per-node=3", "--processes-per-node"), ("--clusters=b", "login node"),
        ("-Mb", "login node"), ("--time=1", "--time before --"), ("-t1", "--time before --"),
    ],
)  # fmt: skip
def test_what_the_script_itself_says_is_not_passed_on(word: str, told: str) -> None:
    with pytest.raises(SslScaleError, match="must not be given to sbatch") as error:
        passed_to_sbatch([word])
    assert told in str(error.value)


def test_what_sbatch_alone_knows_is_passed_on() -> None:
    words = [
        "--export=ALL,A=b", "--nodelist=n1", "--wait-all-nodes=1", "--time-min=5", "--exclusive",
        "--hold", "-H", "-Ca100", "--open-mode=append", "--requeue", "--mem=4G", "-x", "-w",
    ]  # fmt: skip
    assert passed_to_sbatch(words) == words


def test_one_job_that_cannot_be_cancelled_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = install(tmp_path / "bin", monkeypatch)
    let(tmp_path / "bin", "scancel", "[[ $1 != 2 ]]")
    folders = [tmp_path / name for name in "abc"]
    for folder in folders[:2]:  # the third cannot keep a mark
        (folder / "launch").mkdir(parents=True)
    told = take_back(list(zip(folders, "123", strict=True)))
    assert words_of(calls, "scancel") == [["3"], ["2"], ["1"]]
    assert told == (
        "jobs submitted before were cancelled again: 1, 3; "
        "scancel failed for jobs that are queued; try: scancel 2"
    )
    assert take_back([]) == "nothing was queued"


def test_submissions_at_the_same_moment_are_all_on_record_with_scripts_of_their_own(
    tmp_path: Path,
) -> None:
    def one(number: int) -> str:
        script = keep_script(tmp_path, f"{number}\n")
        add_launch(tmp_path, str(number), "", script, [], tmp_path)
        return script.name

    with ThreadPoolExecutor(8) as pool:
        scripts = list(pool.map(one, range(24)))
    assert len(set(scripts)) == 24
    launches = read_launches(tmp_path)
    assert sorted(int(entry["job"]) for entry in launches) == list(range(24))
    for entry in launches:
        assert (tmp_path / "launch" / entry["script"]).read_text() == f"{entry['job']}\n"


def test_a_script_never_takes_the_place_of_another(tmp_path: Path) -> None:
    for name in ("job-001.sh", "job-1003.sh", "job-x.sh"):
        (tmp_path / "launch").mkdir(exist_ok=True)
        (tmp_path / "launch" / name).touch()
    assert keep_script(tmp_path, "x").name == "job-1004.sh"


def test_a_new_job_is_not_taken_for_an_earlier_one_of_its_number(tmp_path: Path) -> None:
    (tmp_path / "launch").mkdir()
    will_not_come_back(tmp_path, "7")
    add_launch(tmp_path, "8", "", tmp_path / "job-001.sh", [], tmp_path)
    assert (tmp_path / "launch/cancel-7").exists()
    add_launch(tmp_path, "7", "", tmp_path / "job-002.sh", [], tmp_path)
    assert not (tmp_path / "launch/cancel-7").exists()
    assert json.loads((tmp_path / "launch.json").read_text())["launches"][1]["job"] == "7"


def test_the_jobs_of_a_sandbox_are_counted_from_a_number_that_it_is_given(tmp_path: Path) -> None:
    text = slurm_configuration(Layout(tmp_path), "here", [1, 2], 4, 4711)
    assert "\nFirstJobId=4711\n" in text
