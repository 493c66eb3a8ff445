"""The command starts at once and says what it can do."""

import os
import subprocess
import sys
import time

import pytest
from ssl_scale_data_tools.cli import main, make_parser

HEAVY = ("torch", "lightning", "pyarrow", "numpy", "sklearn", "PIL", "tokenizers", "tqdm", "xxhash")


@pytest.mark.parametrize(
    "command", [(), ("build",), ("index",), ("verify",), ("tokenize",), ("example",)]
)
def test_help_has_examples_and_imports_nothing_heavy(command: tuple[str, ...]) -> None:
    script = (
        "import sys\n"
        "from ssl_scale_data_tools.cli import main\n"
        "try:\n"
        f"    main([*{command!r}, '--help'])\n"
        "finally:\n"
        f"    print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    started = time.monotonic()
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert time.monotonic() - started < 10  # what is heavy is named below; this only stops a hang
    assert result.returncode == 0
    assert "examples:" in result.stdout and "HEAVY []" in result.stdout


def test_an_unknown_command_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["biuld"])
    assert caught.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_debug_is_taken_after_the_command() -> None:
    args = make_parser().parse_args(["build", "a", "b", "--debug"])
    assert args.debug


def test_a_fault_of_ours_is_said_to_be_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssl_scale_data_tools import command_build

    def fail(args: object) -> None:
        raise ZeroDivisionError("what")

    monkeypatch.setattr(command_build, "run", fail)
    assert main(["build", "a", "b"]) == 1
    assert "internal error (ZeroDivisionError: what)" in capsys.readouterr().err


def test_a_terminal_gets_a_bar_and_anything_else_plain_lines() -> None:
    script = (
        "from ssl_scale_data_tools.console import Progress\n"
        "with Progress('pack', 2000, 'samples') as bar:\n"
        "    bar.advance(1000)\n"
        "    bar.advance(1000)\n"
    )
    plain = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    (line,) = plain.stderr.splitlines()
    assert line.startswith("pack: 2,000 of 2,000 samples") and "\r" not in line
    ours, theirs = os.openpty()
    with subprocess.Popen([sys.executable, "-c", script], stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # how Linux says that the other end was closed
            pass
        os.close(ours)
    assert process.returncode == 0
    assert b"pack: 100%" in shown and b"2.00k/2.00k" in shown
