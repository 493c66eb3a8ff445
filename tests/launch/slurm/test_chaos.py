"""``ssl-launch chaos``: what is struck on a real Slurm, and what is made of it."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssl_scale_launch import cli
from ssl_scale_launch.slurm.chaos.blows import Dealt, draw, draw_table
from ssl_scale_launch.slurm.chaos.comparison import Comparison, losses_of
from ssl_scale_launch.slurm.chaos.strikes import KINDS, Refused, Target
from ssl_scale_launch.slurm.client.owned_process import OwnedProcess, with_variable
from ssl_scale_launch.slurm.client.record import add_launch
from ssl_scale_launch.slurm.client.sbatch import options_of_folder
from ssl_scale_launch.slurm.job.moved_script import moved, run_folder_of_script
from ssl_scale_launch.slurm.job.profile import Container
from ssl_scale_launch.slurm.job.script import Job, render
from ssl_scale_launch.slurm.sandbox.cluster import SandboxCluster

from ssl_scale.errors import SslScaleError
from tests.launch.slurm.submitted import COMMAND, Submitted
from tests.launch.slurm.test_script import HOSTILE, PLAIN

CONTAINERS = [
    None,
    Container(runtime="apptainer", image="a.sif", mounts=("/data",)),
    Container(runtime="pyxis", image="a.sqsh", mounts=("/data:/d", "/runs/first")),
]


def job_in(folder: Path, container: Container | None, *words: str) -> Job:
    program = ("ssl-scale", "fit", "mine.yaml", f"--run-folder={folder}", *words)
    return dataclasses.replace(PLAIN, run_folder=folder, program=program, container=container)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", ["first", "a b", "it's $(x)", "*", "-rf", "a:b"])
def test_a_script_made_over_is_the_script_of_the_other_folder(
    container: Container | None, name: str
) -> None:
    if container is not None and ":" in name:
        pytest.skip("no container mounts it")
    for old, new in (("/runs/first", f"/runs/{name}"), (f"/runs/{name}", "/other/run")):
        before, after = (
            job_in(Path(old), container, *HOSTILE),
            job_in(Path(new), container, *HOSTILE),
        )
        assert moved(render(before), Path(new)) == render(after)
        assert run_folder_of_script(render(before)) == Path(old)


def test_what_others_have_in_the_folder_stays_theirs() -> None:
    data = "--data=images=/runs/first/exported"
    script = moved(render(job_in(Path("/runs/first"), None, data)), Path("/runs/other"))
    assert data in script
    assert script.count("/runs/first") == 1


def test_a_script_with_a_second_such_line_is_refused() -> None:
    hidden = "--set=a=\nrun_folder=/runs/first\n"
    for script in (render(job_in(Path("/runs/first"), None, hidden)), "#!/bin/bash\n"):
        with pytest.raises(SslScaleError, match="must have one line with 'run_folder='"):
            moved(script, Path("/runs/it's"))


def test_strikes_are_drawn_by_the_seed_one_in_each_stretch_of_the_run_all_kinds_in_turn() -> None:
    kinds = list(KINDS)
    blows = draw(random.Random(1), 10, kinds, ranks=4, steps=1000, pause_s=10)
    assert blows == draw(random.Random(1), 10, kinds, ranks=4, steps=1000, pause_s=10)
    assert blows != draw(random.Random(2), 10, kinds, ranks=4, steps=1000, pause_s=10)
    for half in (blows[:5], blows[5:]):
        assert {blow.kind for blow in half} == set(kinds)
    assert [blow.step // 90 for blow in blows] == list(range(10))
    assert {blow.rank for blow in draw(random.Random(1), 99, kinds, 4, 1000, 10)} == {0, 1, 2, 3}


def test_of_a_step_that_was_done_again_the_last_time_counts(tmp_path: Path) -> None:
    lines = [
        {"kind": "train", "step": 1, "loss": 1.0, "loss/a": 2.0, "samples_per_s": 3.0},
        {"kind": "train", "step": 2, "loss": 1.0},
        {"kind": "superseded", "after_step": 1},
        {"kind": "validation", "step": 2, "loss": 7.0},
        {"kind": "train", "step": 2, "loss": 0.5},
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n{"kind": "train", "step": 3, "lo'
    (tmp_path / "metrics.jsonl").write_text(text)
    assert losses_of(tmp_path) == {1: {"loss": 1.0, "loss/a": 2.0}, 2: {"loss": 0.5}}


def test_a_verdict_names_what_differs() -> None:
    same = Comparison(("a", "a"), True, "", 9, ())
    assert same.is_same
    assert same.lines() == ["weights' hash: a and a", "losses: of 9 steps, all the same"]
    other = Comparison(("a", "b"), False, "tensors: master/x\n", 9, (4, 7))
    assert not other.is_same
    assert other.lines()[1:] == [
        "tensors: master/x",
        "losses differ at 2 of 9 steps, first at step 4",
    ]
    assert not dataclasses.replace(same, differing=(4,)).is_same


def test_the_table_has_a_row_for_every_strike() -> None:
    dealt = [Dealt("kill", "rank 1 on n1", 1200, 17.04, 3), Dealt("suspend", "all ranks", 7, 5, 0)]
    assert draw_table(dealt) == [
        "   kind      step  again after  steps redone  victim",
        "1  kill     1,200       17.0 s             3  rank 1 on n1",
        "2  suspend      7        5.0 s             0  all ranks",
    ]


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """The folder of a run that is said to be done."""
    folder = tmp_path / "first"
    (folder / "launch").mkdir(parents=True)
    script = folder / "launch/job-001.sh"
    script.write_text(render(job_in(folder, None)))
    options = [*options_of_folder(folder), "--dependency=afterok:7", "--comment=a b"]
    add_launch(folder, "8", "", script, options, tmp_path)
    (folder / "COMPLETED").write_text("1000\n")
    (folder / "environment.json").write_text(json.dumps({"attempts": [{"processes": 4}]}))
    return folder


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(done.parent.rglob("*"))
    assert cli.main(["chaos", str(done), "--dry-run", "--kills=2", "--kinds=kill,requeue"]) == 0
    first, *strikes = capsys.readouterr().out.splitlines()
    assert first == (
        f"would submit {done}-chaos by: sbatch --job-name=first-chaos "
        f"--output={done}-chaos/logs/slurm-%j.log '--comment=a b'"
    )
    assert len(strikes) == 2
    assert sorted(done.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--kinds=kill,burn"], "--kinds must be of kill, kill-all, terminate"),
        (["--kills=0"], "--kills must be above 0, but is 0"),
        (["--pause=-1"], "--pause must be above 0, but is -1"),
        (["--folder=."], "must not be there yet"),
        (["--folder=a\nb"], "printable name"),
    ],
)
def test_what_makes_no_sense_is_refused(
    done: Path, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["chaos", str(done), *options]) == 2
    assert told in capsys.readouterr().err


def test_a_run_that_is_not_done_is_no_measure(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (done / "COMPLETED").unlink()
    assert cli.main(["chaos", str(done)]) == 2
    assert "must be a run that is completed, to compare with" in capsys.readouterr().err


def strike(cluster: SandboxCluster, run: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "chaos", str(run), *options],
        capture_output=True, text=True, check=False, env=cluster.environment,
    )  # fmt: skip


@pytest.mark.slurm
@pytest.mark.timeout(600)
def test_a_run_that_was_struck_ends_as_if_it_had_not_been(
    undisturbed: Submitted, cluster: SandboxCluster, tmp_path: Path
) -> None:
    struck, kinds = tmp_path / "it's struck", ["kill", "suspend", "terminate"]
    options = (f"--folder={struck}", "--kills=3", f"--kinds={','.join(kinds)}", "--pause=4")
    done = strike(cluster, undisturbed.folder, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "after 3 strikes: the same, to the last bit" in done.stdout
    assert "losses: of 300 steps, all the same" in done.stdout
    report = json.loads((struck / "chaos.json").read_text())
    strikes = {each["kind"]: each for each in report["strikes"]}
    assert sorted(strikes) == kinds
    assert strikes["suspend"]["again_s"] > 2
    assert strikes["terminate"]["redone"] == 0
    assert strikes["kill"]["victim"].startswith("rank ")
    assert (struck / "COMPLETED").exists()
    assert len(json.loads((struck / "environment.json").read_text())["attempts"]) == 3
    assert len(set(report["hashes"])) == 1


@pytest.mark.slurm
@pytest.mark.timeout(600)
def test_a_run_that_becomes_another_is_found_out(
    undisturbed: Submitted, cluster: SandboxCluster, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(undisturbed.folder, other, symlinks=True)
    [script] = (other / "launch").glob("job-*.sh")
    script.write_text(
        script.read_text().replace("    fit\n", "    fit\n    --set=train.seed=1\n", 1)
    )
    done = strike(cluster, other, "--kills=1", "--kinds=suspend", "--pause=1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "tensors of other values, worst first" in done.stdout
    assert "losses differ at 300 of 300 steps, first at step 1" in done.stdout
    assert "after 1 strikes: NOT the same" in done.stdout
    hashes = json.loads((tmp_path / "other-chaos/chaos.json").read_text())["hashes"]
    assert len(set(hashes)) == 2


@pytest.fixture
def sleeping(cluster: SandboxCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """A job that Slurm may not put back into the queue; its ranks sleep."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    rank = "srun --nodes=2 --ntasks=2 bash -c 'sleep 1000.25; exit 1'"
    options = ("--parsable", "--nodes=2", "--no-requeue", "--output=/dev/null")
    job = cluster.command("sbatch", *options, f"--wrap={rank}").strip()
    deadline = time.monotonic() + 30
    while (target := Target.find(job)) is None or len(sleepers(job)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield target
    cluster.command("scancel", "--full", "--signal=KILL", job)


def sleepers(job: str) -> list[OwnedProcess]:
    ours = set(with_variable("SLURM_CONF", os.environ["SLURM_CONF"]))
    found = ours.intersection(with_variable("SLURM_JOB_ID", job))
    return [process for process in found if process.name == "sleep"]


def is_stopped(process: OwnedProcess) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def wait_until(are_stopped: bool, processes: list[OwnedProcess]) -> None:
    deadline = time.monotonic() + 20
    while any(is_stopped(process) != are_stopped for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slurm
def test_what_slurm_does_not_allow_is_told(sleeping: Target) -> None:
    with pytest.raises(Refused, match="scontrol requeue"):
        sleeping.strike("requeue", 0, 1)


@pytest.mark.slurm
def test_one_rank_alone_is_killed_and_ranks_that_are_gone_are_not_hit(sleeping: Target) -> None:
    one, other = sleepers(sleeping.job)
    victim = sleeping.strike("kill", 1, 1)
    assert victim in {f"rank 1 on n2, process {each.pid}" for each in (one, other)}
    assert one.is_alive != other.is_alive
    assert sleeping.strike("kill", 1, 1) == ""


@pytest.mark.slurm
def test_stopped_ranks_go_on_even_if_who_stopped_them_is_killed(sleeping: Target) -> None:
    ranks = sleepers(sleeping.job)
    code = (
        "from ssl_scale_launch.slurm.chaos.strikes import Target; "
        f"Target{dataclasses.astuple(sleeping)}.strike('suspend', 0, 3)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as striker:
        wait_until(True, ranks)
        striker.send_signal(signal.SIGKILL)
    wait_until(False, ranks)
