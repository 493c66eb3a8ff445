"""Running one command as W processes: all of them succeed, or all of them end.

One loop waits for everything at once: the processes (`pidfd_open`), rank 0's output and signals to
us. Each rank has a process group of its own: the terminal's Ctrl-C reaches it only through us, and
once, and what it leaves behind can be ended with it. The kernel ends the ranks if we are killed.
"""

import contextlib
import ctypes
import os
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .output import Copier, LineLog

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
USER_ERRORS = (2, 3)
PR_SET_PDEATHSIG = 1
ERROR_LINES = 60
ERROR_BYTES = 4_000_000
# Ranks that fail over the same mistake of the user's do so almost together: time for rank 0 to
# print it, before another rank's log is quoted instead.
AGREEMENT_S = 3.0
# Ranks that were signalled may be saving; one that ends badly has broken the save for all.
SIGNALLED_GRACE_S = 30.0


@dataclass
class Rank:
    """One process of a run.

    Args:
        rank: its place among the processes.
        process: the process.
        log: the file with all of its output.
        log_start: where this attempt's output begins in the log.
        ended: when it ended (`time.monotonic`), once it has.
    """

    rank: int
    process: "subprocess.Popen[bytes]"
    log: Path
    log_start: int
    ended: float | None = None

    @property
    def code(self) -> int:
        """The exit code as a shell gives it: 128 + the signal for a killed process."""
        code = self.process.returncode
        return 128 - code if code < 0 else code

    def describe_end(self) -> str:
        """How the process ended."""
        code = self.process.returncode
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name
        memory = " (out of memory, or killed by hand)" if -code == signal.SIGKILL else ""
        return f"was killed by {name}{memory}"

    def first_error(self) -> str:
        """The first error in this attempt's output, else its last lines."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self.log_start, size - ERROR_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        for number, line in enumerate(lines):
            if line.startswith("error: "):
                return line
            if line.startswith("Traceback (most recent call last)"):
                return "\n".join(lines[number : number + ERROR_LINES])
        return "\n".join(lines[-20:])


@dataclass(frozen=True)
class End:
    """How a run of several processes ended.

    Args:
        code: 0, or the exit code of the rank that failed first (128 + n if signal n ended it).
        was_signalled: whether somebody asked the run to end, by a signal to the launcher.
    """

    code: int
    was_signalled: bool


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port of the loopback address that no other program is given until the run has it.

    The socket stays bound without listening, and allows reuse: the ranks' rendezvous (which allows
    reuse too) can listen there, while whoever asks for any free port gets another.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def rank_environment(rank: int, count: int, port: int | str) -> dict[str, str]:
    """What a rank is told about its place."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def run_processes(
    command: Sequence[str],
    count: int,
    *,
    logs: Path,
    environment: Mapping[str, str],
    grace_s: float = 5.0,
) -> End:
    """Run a command as ranks 0 to count - 1 on this machine and wait for all of them.

    If one fails, the others are ended. SIGINT, SIGTERM and SIGHUP to us are passed on to every
    rank; a second one kills them.

    Args:
        command: program and arguments; no shell reads them.
        count: number of processes.
        logs: folder for ``rank-N.log``; appended to. Rank 0's output goes to ours, too.
        environment: of every rank, to which its place is added.
        grace_s: how long a rank that was asked to end may take until it is killed.
    """
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SslScaleError(
            f"{logs}: must be a folder that can be written, but is not ({error}); mend it, or "
            "choose another with --run-folder"
        ) from error
    with reserved_port() as port, tempfile.TemporaryDirectory() as folder, _Run(grace_s) as run:
        # A file to meet at: torch's own rendezvous would listen on every address of the host.
        meeting = {"SSL_SCALE_RENDEZVOUS": (Path(folder) / "rendezvous").as_uri()}
        for rank in range(count):
            place = {**rank_environment(rank, count, port), **meeting}
            run.start(rank, command, {**environment, **place}, logs / f"rank-{rank}.log")
        return run.wait()


class _Run:
    """The processes of one run and the loop that waits for them."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._ranks: list[Rank] = []
        self._selector = selectors.DefaultSelector()
        self._copier: Copier | None = None
        self._signals = 0
        self._failed: Rank | None = None
        self._kill_at: float | None = None
        self._ask_at: float | None = None

    def __enter__(self) -> "_Run":
        self._wakeup, ours = socket.socketpair()
        ours.setblocking(False)
        self._wakeup.setblocking(False)
        self._ours = ours
        self._handlers = {
            number: signal.signal(number, lambda *_: None)
            for number in (*PASSED_ON, signal.SIGWINCH)
            if signal.getsignal(number) != signal.SIG_IGN  # nohup, and jobs in the background
        }
        self._old_wakeup = signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._on_signals)
        return self

    def __exit__(self, *_: object) -> None:
        # After an error of our own nothing may go on running.
        for rank in self._running():
            self._end(rank, signal.SIGKILL)
            self._reap(rank)
        if self._copier is not None:
            self._copier.close()
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._selector.close()
        self._wakeup.close()
        self._ours.close()

    def start(
        self, rank: int, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        """Start one rank."""
        with log.open("ab") as file:
            started_at = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write(f"== {started_at} rank {rank}: {shlex.join(command)}\n".encode())
            file.flush()
            log_start = file.tell()
            if rank == 0:
                self._copier = Copier(LineLog(log.open("ab")))
            copier = self._copier if rank == 0 else None
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=copier.stdout if copier else file,
                stderr=copier.stderr if copier else file,
                env=dict(environment),
                process_group=0,
                preexec_fn=_end_with(os.getpid()),
            )
        started = Rank(rank, process, log, log_start)
        self._ranks.append(started)
        pidfd = os.pidfd_open(process.pid)
        self._selector.register(pidfd, selectors.EVENT_READ, lambda _: self._on_end(started, pidfd))
        if copier:
            copier.started()
            for source in copier.sources:
                self._selector.register(source, selectors.EVENT_READ, self._on_output)

    def wait(self) -> End:
        """Wait for all ranks; see `run_processes`."""
        while self._running():
            for key, _ in self._selector.select(self._timeout()):
                key.data(key.fd)
            self._keep_deadlines()
        if self._failed is not None:
            self._tell_failure(self._failed)
        code = 0 if self._failed is None else self._failed.code
        return End(code, was_signalled=self._signals > 0)

    def _running(self) -> list[Rank]:
        return [rank for rank in self._ranks if rank.ended is None]

    def _timeout(self) -> float | None:
        deadlines = [at for at in (self._ask_at, self._kill_at) if at is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _keep_deadlines(self) -> None:
        now = time.monotonic()
        if self._ask_at is not None and now >= self._ask_at:
            self._ask_at = None
            # A rank that was signalled already is ending; a second signal could cut its save off.
            if not self._signals:
                self._to_all(signal.SIGTERM)
            self._kill_at = now + (SIGNALLED_GRACE_S if self._signals else self._grace_s)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._to_all(signal.SIGKILL)

    def _on_output(self, source: int) -> None:
        assert self._copier is not None
        if self._copier.copy(source) is False:
            self._selector.unregister(source)

    def _on_end(self, rank: Rank, pidfd: int) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        # Its leftovers, while the unreaped leader still keeps the group's number from being reused.
        self._end(rank, signal.SIGKILL)
        self._reap(rank)
        if rank.code != 0 and self._failed is None:
            self._failed = rank
            may_agree = rank.code in USER_ERRORS and rank.rank != 0
            self._ask_at = time.monotonic() + (AGREEMENT_S if may_agree else 0.0)
        elif self._failed and rank.rank == 0 and rank.code == self._failed.code in USER_ERRORS:
            self._failed = rank
            if self._ask_at is not None:
                self._ask_at = time.monotonic()

    def _reap(self, rank: Rank) -> None:
        rank.process.wait()
        rank.ended = time.monotonic()

    def _end(self, rank: Rank, number: signal.Signals) -> None:
        # TERM goes to the rank alone: it is to save, for which it may need its workers.
        send: Callable[[int, int], None] = os.killpg if number == signal.SIGKILL else os.kill
        with contextlib.suppress(ProcessLookupError):
            send(rank.process.pid, number)

    def _to_all(self, number: signal.Signals) -> None:
        for rank in self._running():
            self._end(rank, number)

    def _on_signals(self, _: int) -> None:
        for byte in self._wakeup.recv(4096):
            number = signal.Signals(byte)
            if number == signal.SIGWINCH and self._copier is not None:
                self._copier.resize()
            elif number in PASSED_ON:
                self._signals += 1
                self._pass_on(number)

    def _pass_on(self, number: signal.Signals) -> None:
        if self._signals == 1:
            _tell(f"{number.name}: asking {len(self._running())} processes to end; again to kill")
            self._to_all(number)
        else:
            _tell(f"{number.name} again: killing {len(self._running())} processes")
            self._to_all(signal.SIGKILL)

    def _tell_failure(self, rank: Rank) -> None:
        if self._copier is not None:
            self._copier.close()
            self._copier = None
        if self._signals:
            return
        if rank.rank == 0 and rank.code in USER_ERRORS:
            return  # the command's own message stands on the terminal already
        place = f"rank {rank.rank} {rank.describe_end()}"
        error = "" if rank.rank == 0 else f":\n{rank.first_error()}"
        _tell(f"{place} and the others were ended; all of its output: {rank.log}{error}")


def _tell(message: str) -> None:
    print(f"ssl-launch: {message}", file=sys.stderr, flush=True)


def _end_with(parent: int) -> Callable[[], None]:
    """What a child does before it becomes the command: ask to be killed when we die."""
    prctl = ctypes.CDLL(None).prctl

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # we died before the kernel was asked
            os._exit(1)

    return in_child
