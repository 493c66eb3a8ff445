"""``ssl-launch submit``: what it makes of its options, and what it refuses."""

import argparse
import subprocess
from pathlib import Path

import pytest
from ssl_scale_launch import cli
from ssl_scale_launch.slurm.client.record import add_launch, read_launches
from ssl_scale_launch.slurm.job.profile import Container, Profile, read_profile
from ssl_scale_launch.slurm.job.timing import MARGIN_S, UNMEASURED_S, seconds_of, stop_before_s
from ssl_scale_launch.slurm.submitting.forecast import read_plan
from ssl_scale_launch.slurm.submitting.no_secrets import refuse_secrets
from ssl_scale_launch.slurm.submitting.submission import Submission, prepare
from ssl_scale_launch.submit import profile_of, the_run, waits_of

from ssl_scale.errors import SslScaleError
from tests.train.tiny import make_recipe

PROFILES = Path(cli.__file__).with_name("profiles")


def parse(*arguments: str) -> argparse.Namespace:
    parsed, others = cli.parser().parse_known_args(["submit", *arguments])
    parsed.others = others
    return parsed


def submission_of(*arguments: str) -> Submission:
    return prepared(parse("mine.yaml", "--time=60", *arguments))


def prepared(arguments: argparse.Namespace) -> Submission:
    return prepare(arguments, the_run(arguments), profile_of(arguments))


def test_options_become_a_job() -> None:
    made = submission_of("--nodes=4", "--gpus=8", "--set=a.b=1", "--data=x=/y z", "--name=n")
    assert (made.job.nodes, made.job.gpus, made.job.processes_per_node) == (4, 8, 8)
    assert made.job.program[1:] == (
        "fit", "mine.yaml", f"--run-folder={Path.cwd()}/runs/n", "--name=n", "--data=x=/y z",
        "--set=a.b=1",
    )  # fmt: skip
    assert made.run.words == ("mine.yaml", "--data=x=/y z", "--set=a.b=1")
    assert made.options == ("--job-name=n", f"--output={Path.cwd()}/runs/n/logs/slurm-%j.log")


def test_unknown_options_go_to_sbatch_each_as_one_word() -> None:
    made = submission_of("--exclusive", "--", "--comment=$(x) 'y'")
    assert made.options[2:] == ("--exclusive", "--comment=$(x) 'y'")
    with pytest.raises(SslScaleError, match="options of one word each"):
        submission_of("--constraint", "a100")
    for ours in ("--array=0-3", "--arr=0-3", "-a0", "--dependency=singleton", "-d=after:1"):
        with pytest.raises(SslScaleError, match="say it with --(sweep|after)"):
            submission_of(ours)


def test_a_job_may_wait_for_another() -> None:
    waits = ["--dependency=afterok:12", "--kill-on-invalid-dep=yes"]
    assert waits_of(parse("mine.yaml", "--after=12")) == waits
    for hostile in ("12 --wrap=x", "$(x)", "12:singleton", "runs/a"):
        with pytest.raises(SslScaleError, match="--after must be"):
            waits_of(parse("mine.yaml", f"--after={hostile}"))


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--nodes=0", "--nodes must be at least 1"),
        ("--processes-per-node=0", "--processes-per-node must be at least 1"),
        ("--stop-before=3600", "below --time"),
        ("--time=1 day", "--time must read"),
        ("--name=../x", "name of one folder"),
    ],
)
def test_what_cannot_work_is_refused(option: str, told: str) -> None:
    with pytest.raises(SslScaleError, match=told):
        submission_of(option)
    with pytest.raises(SslScaleError, match="at most 2, the GPUs of a host"):
        submission_of("--gpus=2", "--processes-per-node=3")


def test_a_time_is_read_as_slurm_reads_it() -> None:
    read = {time: seconds_of(time) for time in ("90", "1:30", "1:00:00", "2-0", "1-1:1", "1-1:1:1")}
    assert read == {
        "90": 5400, "1:30": 90, "1:00:00": 3600, "2-0": 172800, "1-1:1": 90060, "1-1:1:1": 90061
    }  # fmt: skip


def test_the_signal_comes_as_early_as_stopping_took_before(tmp_path: Path) -> None:
    assert stop_before_s(tmp_path) == UNMEASURED_S
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch/stop_seconds").write_text("40\n75\ntorn")
    assert stop_before_s(tmp_path) == 150 + MARGIN_S
    options = (f"--run-folder={tmp_path}", "--time=1:00:00")
    assert submission_of(*options).job.stop_before_s == 180


def test_options_go_before_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "{account: a, partition: p, time: '30', sbatch: [--exclusive], network: {A: b}}"
    )
    made = prepared(parse("mine.yaml", f"--profile={path}", "--account=mine"))
    assert (made.job.account, made.job.partition, made.job.time) == ("mine", "p", "30")
    assert made.options[-1] == "--exclusive"
    assert made.job.variables == {"A": "b"}
    with pytest.raises(SslScaleError, match="--time must be given"):
        prepared(parse("mine.yaml"))


def test_a_shells_account_and_queue_hold_where_nothing_else_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SBATCH_ACCOUNT", "ours")
    monkeypatch.setenv("SBATCH_PARTITION", "slow")
    job = submission_of("--time=10", "--partition=fast").job
    assert (job.account, job.partition) == ("ours", "fast")


def test_the_profiles_that_come_with_the_package_are_sound() -> None:
    assert read_profile(PROFILES / "plain.yaml").modules
    container = read_profile(PROFILES / "container.yaml").container
    assert container == Container("apptainer", "/shared/images/ssl_scale.sif", ("/shared", "/tmp"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("acount: x", "did you mean account"),
        ("time: 24:00:00", "time must be one line of text"),
        ("account: 12", "account must be one line of text"),
        ('account: "a\\nb"', "account must be one line of text"),
        ("cpus_per_task: many", "cpus_per_task must be a number above 0"),
        ("gpu_option: gpu", "gpu_option must be one of"),
        ("modules: cuda", "modules must be a list"),
        ("modules: &a [*a]", "without aliases"),
        ("environment: {'A;B': x}", "environment must be names of variables"),
        ("environment: {HF_TOKEN: abc}", "environment.HF_TOKEN must not hold a secret"),
        ("container: {runtime: docker, image: x}", "container.runtime must be one of"),
        ("container: {runtime: pyxis}", "container must say image"),
        ("container: {runtime: pyxis, image: x, mounts: ['/a,/b']}", "paths without commas"),
        ("[", "must be a profile in YAML"),
        ("- a", "must be a mapping"),
    ],
)
def test_a_wrong_profile_is_told_with_its_key(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(SslScaleError, match=told) as error:
        read_profile(path)
    assert str(path) in str(error.value)
    assert "abc" not in str(error.value)


def test_an_empty_profile_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("")
    assert read_profile(path) == Profile()


SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    "word",
    [
        f"--data=images=s3://me:{SECRET}@host/x",
        f"--set=paths.api_key={SECRET}",
        f"--export=ALL,WANDB_API_KEY={SECRET}",
        f"--comment={SECRET}-and-more",
        f"--set=logging={{api_key: {SECRET}}}",
        f"--set=headers={{Authorization: 'Bearer-{SECRET}'}}",
        f"--comment=token:{SECRET}",
        f"--comment={SECRET}-of-a-registry",
    ],
)
def test_a_secret_is_refused_and_not_told(word: str) -> None:
    with pytest.raises(SslScaleError, match="must hold no secret") as error:
        refuse_secrets([word], {"MY_PASSWORD": f"{SECRET}-and-more", "NPM_TOKEN": f"{SECRET}-of-a"})
    assert SECRET not in str(error.value)


def test_what_is_no_secret_is_let_through() -> None:
    words = ["--set=train.steps=8", "--data=images=/data/token", "text: tokenizer=/x"]
    refuse_secrets(words, {"HOME": "/data/token", "SHORT_TOKEN": "8"})


def test_every_submission_is_recorded(tmp_path: Path) -> None:
    for number in ("7", "8"):
        add_launch(tmp_path, number, "", tmp_path / f"{number}.sh", ["--exclusive"], tmp_path)
    assert [entry["job"] for entry in read_launches(tmp_path)] == ["7", "8"]
    script = str(tmp_path / "8.sh")
    assert read_launches(tmp_path)[1]["command"] == ["sbatch", "--parsable", "--exclusive", script]
    (tmp_path / "launch.json").write_text("{")
    with pytest.raises(SslScaleError, match="damaged"):
        read_launches(tmp_path)


def plan(fits: bool) -> dict[str, object]:
    return {
        "stage": 2, "fits": {"2": fits}, "rank_totals": {"2": 90e9}, "step_s": 0.5,
        "machines": {"memory_bytes": 80e9, "mfu": 0.35}, "missing": [],
        "advice": None if fits else "ZeRO-3 would fit",
        "run": {"steps": 1000, "hours": 2.0, "gpu_hours": 16.0, "checkpoints": 2},
    }  # fmt: skip


def test_a_forecast_tells_memory_time_and_gpu_hours() -> None:
    told = read_plan(plan(fits=False))
    assert not told.fits
    assert told.lines == (
        "memory: 90 of 80 GB a GPU under ZeRO-2: does NOT fit",
        "ZeRO-3 would fit",
        "a step: 0.5 s at 35% of the peak",
        "the run: 1,000 steps, 2 h, 16 GPU-hours",
    )
    assert read_plan(plan(fits=True)).fits


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text("extends: vision/mae\nobjectives: {mae: {wieght: 2}}\n")
    return path


def test_a_wrong_recipe_is_told_before_anything_is_submitted(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe.parent)
    assert cli.main(["submit", str(recipe), "--time=60"]) == 2
    assert "wieght" in capsys.readouterr().err
    assert list(recipe.parent.iterdir()) == [recipe]


def test_a_dry_run_plans_prints_the_script_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["submit", str(recipe), "--time=60", "--gpus=2", "--dry-run"]) == 0
    shown = capsys.readouterr()
    subprocess.run(["bash", "-n"], input=shown.out, text=True, check=True)
    assert "#SBATCH --gpus-per-node=2" in shown.out
    assert "fits" in shown.err
    assert "GPU-hours" in shown.err
    assert sorted(tmp_path.rglob("*")) == before
