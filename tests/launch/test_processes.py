"""The launcher against real processes: small Python programs as its ranks."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

# The launcher runs in a process of its own, as it does for users: signals and exit codes are real.
LAUNCHER = """
import os, sys
from pathlib import Path
from ssl_scale_launch.processes import run_processes
logs, count, grace, program = sys.argv[1:]
end = run_processes([sys.executable, "-c", program], int(count), logs=Path(logs),
                    environment=os.environ, grace_s=float(grace))
sys.exit(end.code)
"""
HEADER = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
def ready():
    open(f"ready-{rank}", "w").write(str(os.getpid()))
def wait():
    ready()
    time.sleep(60)
"""
WAIT_S = 60.0


class Launched:
    """A launcher that runs a program, and what can be asked of it."""

    def __init__(self, folder: Path, program: str, count: int, grace_s: float) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        arguments = [str(self.logs), str(count), str(grace_s), HEADER + program]
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> tuple[int, str, str]:
        output, errors = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, output, errors

    def pids(self, count: int) -> list[int]:
        """Process ids of the ranks, once all have said that they are ready."""
        files = [self.folder / f"ready-{rank}" for rank in range(count)]
        until(lambda: all(file.exists() and file.read_text() for file in files))
        return [int(file.read_text()) for file in files]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "the awaited never happened"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., Launched]:
    def start(program: str, count: int = 2, grace_s: float = 0.5) -> Launched:
        return Launched(tmp_path, program, count, grace_s)

    return start


def test_each_rank_knows_its_place_and_all_agree_on_the_port(
    launch: Callable[..., Launched], tmp_path: Path
) -> None:
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR"]
    launched = launch(
        f"print('told', *[os.environ[name] for name in {names!r}], os.environ['MASTER_PORT'])", 3
    )
    code, output, errors = launched.finish()
    assert (code, errors) == (0, "")
    told = [
        [line for line in log.read_text().splitlines() if line.startswith("told")]
        for log in sorted(launched.logs.glob("rank-*.log"))
    ]
    port = told[0][0].split()[-1]
    assert told == [[f"told {rank} {rank} 3 3 0 127.0.0.1 {port}"] for rank in range(3)]
    assert output == told[0][0] + "\n"  # the terminal shows rank 0 only


def test_ranks_meet_at_the_reserved_port(launch: Callable[..., Launched]) -> None:
    code, output, _ = launch(
        """
import torch.distributed as distributed
port = int(os.environ["MASTER_PORT"])
store = distributed.TCPStore(os.environ["MASTER_ADDR"], port, 2, rank == 0)
store.set(str(rank), f"greetings from {rank}")
other = store.get(str(1 - rank)).decode()
print(other)
store.set(f"done {rank}", "")
store.get(f"done {1 - rank}")
"""
    ).finish()
    assert (code, output) == (0, "greetings from 1\n")


def test_ranks_are_told_a_file_to_meet_at_that_is_gone_afterwards(
    launch: Callable[..., Launched],
) -> None:
    code, output, _ = launch("print(os.environ['SSL_SCALE_RENDEZVOUS'])").finish()
    assert code == 0
    scheme, _, path = output.strip().partition("://")
    assert scheme == "file"
    assert Path(path).is_absolute()
    assert not Path(path).parent.exists()


def test_a_crash_of_one_rank_ends_the_others_and_shows_its_error(
    launch: Callable[..., Launched],
) -> None:
    launched = launch(
        """
if rank == 1:
    while not os.path.exists("ready-0"):
        time.sleep(0.01)
    raise RuntimeError("the wheels came off")
wait()
"""
    )
    began = time.monotonic()
    code, _, errors = launched.finish()
    assert code == 1
    assert time.monotonic() - began < 5
    assert "rank 1 ended with exit code 1" in errors
    assert "Traceback" in errors
    assert "RuntimeError: the wheels came off" in errors
    assert not is_running(int((launched.folder / "ready-0").read_text()))


def test_the_error_of_an_earlier_attempt_is_not_shown(launch: Callable[..., Launched]) -> None:
    program = "sys.exit('error: attempt {} failed') if rank == 1 else wait()"
    assert launch(program.format("one")).finish()[0] == 1
    launched = launch(program.format("two"))
    _, _, errors = launched.finish()
    assert "attempt two failed" in errors
    assert "attempt one failed" not in errors
    assert "attempt one failed" in (launched.logs / "rank-1.log").read_text()


def test_a_mistake_of_the_user_is_shown_once_with_exit_code_2(
    launch: Callable[..., Launched],
) -> None:
    # Rank 1 is first; rank 0 finds the same mistake a moment later.
    code, _, errors = launch(
        """
if rank == 0:
    time.sleep(0.4)
print("error: the recipe is wrong", file=sys.stderr)
sys.exit(2)
""",
        3,
    ).finish()
    assert (code, errors) == (2, "error: the recipe is wrong\n")


def test_a_mistake_that_only_one_rank_meets_is_quoted(launch: Callable[..., Launched]) -> None:
    code, _, errors = launch(
        """
if rank == 1:
    print("error: shard 7 is missing here", file=sys.stderr)
    sys.exit(2)
wait()
"""
    ).finish()
    assert code == 2
    assert errors.count("error: shard 7 is missing here") == 1


def test_a_rank_that_ignores_term_is_killed(launch: Callable[..., Launched]) -> None:
    launched = launch(
        """
if rank == 0:
    signal.signal(signal.SIGTERM, lambda *_: print("no", flush=True))
    wait()
    wait()
while not os.path.exists("ready-0"):
    time.sleep(0.01)
sys.exit(7)
"""
    )
    code, output, _ = launched.finish()
    assert (code, output) == (7, "no\n")
    assert not is_running(int((launched.folder / "ready-0").read_text()))


def test_a_killed_rank_gives_128_plus_the_signal(launch: Callable[..., Launched]) -> None:
    launched = launch("wait()")
    os.kill(launched.pids(2)[1], signal.SIGKILL)
    code, _, errors = launched.finish()
    assert code == 137
    assert "rank 1 was killed by SIGKILL" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_rank_once_and_lets_them_finish(
    launch: Callable[..., Launched], number: signal.Signals
) -> None:
    launched = launch(
        f"""
signals = []
signal.signal({int(number)}, lambda received, _: signals.append(received))
ready()
while not signals:
    time.sleep(0.01)
time.sleep(1.0)  # longer than the grace of a failed run: a save takes its time
print("saved after", len(signals))
"""
    )
    launched.pids(2)
    launched.process.send_signal(number)
    code, output, _ = launched.finish()
    assert (code, output) == (0, "saved after 1\n")
    assert "saved after 1" in (launched.logs / "rank-1.log").read_text()


def test_a_second_signal_kills(launch: Callable[..., Launched]) -> None:
    launched = launch(
        """
signal.signal(signal.SIGTERM, lambda *_: open(f"asked-{rank}", "w"))
wait()
wait()
"""
    )
    pids = launched.pids(2)
    launched.process.send_signal(signal.SIGTERM)
    until(lambda: all((launched.folder / f"asked-{rank}").exists() for rank in range(2)))
    launched.process.send_signal(signal.SIGTERM)
    code, _, errors = launched.finish()
    assert code == 137
    assert "SIGTERM again: killing" in errors
    assert not any(map(is_running, pids))


def test_ranks_die_with_a_killed_launcher(launch: Callable[..., Launched]) -> None:
    launched = launch("wait()")
    pids = launched.pids(2)
    launched.process.kill()
    launched.finish()
    until(lambda: not any(map(is_running, pids)))


def test_what_a_rank_leaves_behind_is_ended(launch: Callable[..., Launched]) -> None:
    launched = launch(
        """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(f"child-{rank}", "w").write(str(child.pid))
"""
    )
    assert launched.finish()[0] == 0
    children = [int((launched.folder / f"child-{rank}").read_text()) for rank in range(2)]
    until(lambda: not any(map(is_running, children)))


def test_a_log_holds_only_what_a_progress_bar_drew_last(launch: Callable[..., Launched]) -> None:
    launched = launch(r"sys.stdout.write('\r10%\r50%\r100%\nend')", 1)
    code, output, _ = launched.finish()
    assert (code, output) == (0, "\n10%\n50%\n100%\nend")  # text mode reads \r as a line's end
    assert (launched.logs / "rank-0.log").read_text().splitlines()[-2:] == ["100%", "end"]


def test_much_output_arrives_whole(launch: Callable[..., Launched]) -> None:
    launched = launch("print('x' * 99 + '\\n', end='', flush=True)\nprint('y' * 3_000_000)", 1)
    code, output, _ = launched.finish()
    assert code == 0
    assert output == "x" * 99 + "\n" + "y" * 3_000_000 + "\n"


def test_rank_0_sees_a_terminal_of_the_right_size_where_there_is_one(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    seen = "print(sys.stdout.isatty(), sys.stderr.isatty(), os.get_terminal_size())"
    program = HEADER + f"if rank == 0: {seen}"
    arguments = [str(tmp_path / "logs"), "2", "1", program]
    code = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *arguments], stdout=theirs, stderr=theirs, timeout=WAIT_S
    ).returncode
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert code == 0
    assert shown == "True True os.terminal_size(columns=77, lines=33)\r\n"
