"""A private Slurm cluster on this machine: munged, slurmctld and one slurmd a virtual node."""

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_scale.errors import SslScaleError

from ..client.command import slurm_environment
from ..client.owned_process import OwnedProcess, end, with_variable
from ..client.packages import require_packages
from .config import LOOPBACK, Layout, node_names, slurm_configuration

MARK = "SSL_LAUNCH_SANDBOX"
SERVER = "SSL_LAUNCH_SANDBOX_SERVER"
CONTROLLER = "slurmctld"
START_S = 30.0
END_S = 10.0
LOOK_S = 0.1
CPUS = 8
# Runs remember their jobs, so that the jobs of the next sandbox must not have the same numbers.
FIRST_JOBS = 50_000


class SandboxCluster:
    """The cluster below a folder, running or not.

    Args:
        folder: everything of it lies there.
        environment: that its processes start from.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] = os.environ) -> None:
        self.layout = Layout(folder.absolute())
        self._inherited = environment
        self._children: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        """The variables under which Slurm's commands talk to this cluster."""
        # Where we run in a job of another Slurm, its variables would decide for this one's.
        return slurm_environment(self._inherited, self.layout.configuration)

    def up(self, nodes: int) -> None:
        """Start it and wait until all nodes take jobs.

        Raises:
            SslScaleError: packages are missing, it runs already, or a server does not start.
        """
        require_packages(self._inherited)
        if alive := [process for process in self._recorded() if process.is_alive]:
            raise SslScaleError(
                f"{self.layout.folder}: must hold no running sandbox, but holds "
                f"{', '.join(map(str, alive))}; ssl-launch sandbox down ends it, another --folder "
                "makes a second one"
            )
        self._make_files()
        mark = secrets.token_hex(16)
        try:
            with _free_ports(1 + nodes) as ports:
                self._start_all(ports, mark)
        except BaseException:
            self.down()
            raise

    def down(self) -> list[OwnedProcess]:
        """End its jobs and everything it started; returns what could not be ended."""
        record = self._read_record()
        processes = self._recorded()
        if any(process.is_alive for process in processes):
            self._cancel_jobs()
        # Servers first, or a node would start anew what its controller still wants.
        remaining = end(list(reversed(processes)), END_S)
        if mark := record.get("mark"):
            remaining += end(list(with_variable(MARK, mark)), END_S)
        self._children = [child for child in self._children if child.poll() is None]
        if not remaining:
            self.layout.records.unlink(missing_ok=True)
        return remaining

    def kill(self, name: str) -> None:
        """Kill one server alone, as a crash would; what a node runs goes on.

        Args:
            name: ``slurmctld``, or a node such as ``n2``.
        """
        process = self.server(name)
        process.send(signal.SIGKILL)
        deadline = time.monotonic() + END_S
        while process.is_alive and time.monotonic() < deadline:
            time.sleep(LOOK_S)

    def cut_power(self, node: str) -> None:
        """Kill a node's server and all that runs on it."""
        self.kill(node)
        ours = set(with_variable("SLURM_CONF", str(self.layout.configuration)))
        tasks = ours.intersection(with_variable("SLURMD_NODENAME", node))
        for process in (*with_variable(SERVER, self._mark_of(node)), *tasks):
            process.send(signal.SIGKILL)

    def start_again(self, name: str) -> None:
        """Start a server that was killed; the controller remembers its jobs.

        Raises:
            SslScaleError: there is no such server, or it runs.
        """
        if self.server(name).is_alive:
            raise SslScaleError(f"{name} must have ended, but runs")
        self._start(name, self._server(name), self._read_record()["mark"])
        self._wait(CONTROLLER, self._answers)

    def server(self, name: str) -> OwnedProcess:
        """One of the servers.

        Args:
            name: ``slurmctld``, or a node such as ``n2``.
        """
        servers = {process.name: process for process in self._recorded()}
        if name not in servers:
            known = ", ".join(servers) or "none: the sandbox is not up"
            raise SslScaleError(f"{name!r} must be a server of the sandbox ({known})")
        return servers[name]

    def _mark_of(self, name: str) -> str:
        return f"{self._read_record()['mark']}-{name}"

    def command(self, *words: str) -> str:
        """Run one of Slurm's commands; returns what it printed.

        Raises:
            SslScaleError: it failed.
        """
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        if done.returncode:
            raise SslScaleError(f"{words[0]} must succeed, but: {done.stderr.strip()}")
        return done.stdout

    def _make_files(self) -> None:
        layout = self.layout
        with contextlib.suppress(FileNotFoundError):
            if layout.folder.lstat().st_uid != os.getuid() or layout.folder.is_symlink():
                raise SslScaleError(f"{layout.folder}: must be a folder of yours, but is not")
            shutil.rmtree(layout.folder / "state", ignore_errors=True)
        layout.make()
        key = layout.munge / "key"
        key.unlink(missing_ok=True)
        with open(os.open(key, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(secrets.token_bytes(128))
        (layout.folder / "plugstack.conf").write_text("")

    def _start_all(self, ports: Sequence[int], mark: str) -> None:
        layout, names = self.layout, node_names(len(ports) - 1)
        first_job = 1 + secrets.randbelow(FIRST_JOBS)
        text = slurm_configuration(layout, socket.gethostname(), ports, CPUS, first_job)
        layout.configuration.write_text(text)
        munge = [f"--{name}-file={layout.munge / name}" for name in ("key", "seed", "pid")]
        # By force, since the folder is its owner's alone, and munge would have it open to all.
        munge += [f"--socket={layout.socket}", "--foreground", "--num-threads=2", "--force"]
        self._start("munged", ["munged", *munge], mark)
        self._wait("munged", layout.socket.exists)
        self._start(CONTROLLER, [*self._server(CONTROLLER), "-c"], mark)
        for name in names:
            self._start(name, self._server(name), mark)
        self._wait(CONTROLLER, lambda: self.idle_nodes() == len(names))

    def _server(self, name: str) -> list[str]:
        program = [CONTROLLER] if name == CONTROLLER else ["slurmd", "-N", name]
        return [*program, "-D", "-f", str(self.layout.configuration)]

    def _start(self, name: str, command: Sequence[str], mark: str) -> None:
        with (self.layout.logs / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.layout.folder,
                env={**self.environment, MARK: mark, SERVER: f"{mark}-{name}"},
                start_new_session=True,
            )
        self._children = [child for child in self._children if child.poll() is None]
        self._children.append(process)
        known = OwnedProcess.of(name, process.pid)
        others = [process for process in self._recorded() if process.name != name]
        processes = [*others, *([known] if known else [])]
        record = {"mark": mark, "processes": [dataclasses.asdict(entry) for entry in processes]}
        draft = self.layout.records.with_suffix(".tmp")
        draft.write_text(json.dumps(record, indent=1) + "\n")
        draft.replace(self.layout.records)

    def _wait(self, name: str, is_ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not is_ready():
            has_ended = any(child.poll() is not None for child in self._children)
            if has_ended or time.monotonic() > deadline:
                said = (self.layout.logs / f"{name}.out").read_text(errors="replace")[-2000:]
                raise SslScaleError(
                    f"the sandbox's servers must all run within {START_S:g} s, but do not; their "
                    f"logs are in {self.layout.logs}; {name} said:\n{said}"
                )
            time.sleep(LOOK_S)

    def _answers(self) -> bool:
        try:
            self.command("squeue")
        except SslScaleError:
            return False
        return True

    def idle_nodes(self) -> int:
        """How many nodes are ready and have nothing to do."""
        try:
            states = self.command("sinfo", "--noheader", "--Node", "--format=%T").split()
        except SslScaleError:
            return 0
        return states.count("idle")

    def _cancel_jobs(self) -> None:
        with contextlib.suppress(SslScaleError, subprocess.TimeoutExpired):
            jobs = self.command("squeue", "--noheader", "--format=%A").split()
            if jobs:
                self.command("scancel", "--full", "--signal=KILL", *jobs)
                self.command("scancel", *jobs)
            deadline = time.monotonic() + END_S
            while time.monotonic() < deadline and self.command("squeue", "--noheader").strip():
                time.sleep(LOOK_S)

    def _read_record(self) -> dict[str, Any]:
        try:
            record = json.loads(self.layout.records.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise SslScaleError(
                f"{self.layout.records}: must hold the processes of the sandbox, but is damaged "
                f"({error}); end them by hand and remove it"
            ) from error
        return dict(record)

    def _recorded(self) -> list[OwnedProcess]:
        return [OwnedProcess(**entry) for entry in self._read_record().get("processes", [])]


@contextlib.contextmanager
def _free_ports(count: int) -> Iterator[list[int]]:
    """Ports of the loopback address that nobody else is given until the servers have them.

    The sockets stay bound without listening and allow reuse, as Slurm's own do.
    """
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            holder = stack.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind((LOOPBACK, 0))
            ports.append(holder.getsockname()[1])
        yield ports
