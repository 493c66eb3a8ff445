"""``ssl-launch sandbox``: a whole Slurm cluster that comes, serves and goes without a trace."""

import dataclasses
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssl_scale_launch import cli
from ssl_scale_launch.slurm.client.owned_process import OwnedProcess, end, with_variable
from ssl_scale_launch.slurm.client.packages import (
    how_to_install,
    missing_packages,
    require_packages,
)
from ssl_scale_launch.slurm.sandbox.cluster import MARK, SandboxCluster
from ssl_scale_launch.slurm.sandbox.config import Layout

from ssl_scale.errors import SslScaleError
from tests.launch.slurm.listening import listening_addresses


@pytest.fixture
def sleeper() -> Iterator[OwnedProcess]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        known = OwnedProcess.of("sleeper", process.pid)
        assert known is not None
        yield known
        process.kill()


def test_missing_packages_are_named_with_the_command_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sbatch").touch(mode=0o755)
    monkeypatch.setattr("ssl_scale_launch.slurm.client.packages.SYSTEM_PATHS", ())
    with pytest.raises(SslScaleError, match="sudo apt-get install --no-install-recommends") as told:
        require_packages({"PATH": str(tmp_path)})
    for package in ("munge", "slurmctld", "slurmd", "slurm-client"):
        assert package in str(told.value)
    assert how_to_install(["munge"]).endswith("recommends munge")


@pytest.mark.parametrize("folder", ["/tmp/a b", "/tmp/$(x)", "/tmp/a\nb", "/tmp/" + "x" * 100])
def test_a_folder_that_slurm_cannot_name_is_refused(folder: str) -> None:
    with pytest.raises(SslScaleError, match="--folder must be"):
        Layout(Path(folder))


def test_another_process_of_the_same_number_is_never_signalled(sleeper: OwnedProcess) -> None:
    earlier = dataclasses.replace(sleeper, started=sleeper.started - 1)
    of_another_boot = dataclasses.replace(sleeper, boot="another")
    for other in (earlier, of_another_boot):
        assert not other.is_alive
        assert end([other], 0.1) == []
        other.send(signal.SIGKILL)
    assert sleeper.is_alive
    assert end([sleeper], 5) == []
    assert not sleeper.is_alive


def test_down_where_nothing_was_started_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sandbox", "down", f"--folder={tmp_path}"]) == 0
    assert "nothing of it runs" in capsys.readouterr().err


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "processes.json").write_text("{")
    with pytest.raises(SslScaleError, match="damaged"):
        SandboxCluster(tmp_path).down()


@pytest.mark.slurm
def test_a_job_runs_on_all_nodes_and_only_loopback_listens(cluster: SandboxCluster) -> None:
    names = cluster.command("srun", "-N2", "bash", "-c", "echo $SLURMD_NODENAME").split()
    assert sorted(names) == ["n1", "n2"]
    pids = {entry["pid"] for entry in json.loads(cluster.layout.records.read_text())["processes"]}
    listening = listening_addresses(pids)
    assert len(listening) == 3
    assert {address.rpartition(":")[0] for address in listening} == {"127.0.0.1"}


@pytest.mark.slurm
def test_down_ends_servers_and_running_jobs(own_folder: Path) -> None:
    command = [str(Path(sys.executable).with_name("ssl-launch")), "sandbox"]
    options = ["--nodes=1", f"--folder={own_folder}"]
    started = subprocess.run([*command, "up", *options], capture_output=True, text=True, check=True)
    assert shlex.split(started.stdout) == ["export", f"SLURM_CONF={own_folder}/slurm.conf"]

    cluster = SandboxCluster(own_folder)
    with pytest.raises(SslScaleError, match="must hold no running sandbox"):
        cluster.up(nodes=1)
    # A job that does not end when asked to.
    cluster.command("sbatch", "--output=/dev/null", "--wrap", "trap '' TERM; sleep 1000.5")
    while "RUNNING" not in cluster.command("squeue", "--noheader", "--format=%T"):
        time.sleep(0.1)
    mark = json.loads(cluster.layout.records.read_text())["mark"]
    assert {process.name for process in with_variable(MARK, mark)} >= {"munged", "slurmstepd"}

    subprocess.run([*command, "down", f"--folder={own_folder}"], check=True)
    assert list(with_variable(MARK, mark)) == []
    assert list(with_variable("SLURM_CONF", f"{own_folder}/slurm.conf")) == []


def test_the_packages_of_a_machine_that_has_all_are_none(tmp_path: Path) -> None:
    for program in ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue"):
        (tmp_path / program).touch(mode=0o755)
    (tmp_path / "scancel").touch(mode=0o755)
    assert missing_packages({"PATH": str(tmp_path)}) == []
