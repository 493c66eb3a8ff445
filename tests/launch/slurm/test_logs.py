"""``ssl-launch logs``: many logs read as one, the first error on top."""

from pathlib import Path

import pytest
from ssl_scale_launch import cli
from ssl_scale_launch.slurm.watch.rank_logs import Follower, first_failure, log_files


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    logs = tmp_path / "logs"
    logs.mkdir()
    for rank in (0, 1, 2, 10):
        (logs / f"rank-{rank}.log").write_text(f"hello\nthis is {rank}\n")
    with (logs / "rank-2.log").open("a") as file:
        file.write("Traceback (most recent call last)\n  old\nValueError: old\n")
        file.write("Traceback (most recent call last)\n  new\nValueError: new\n")
    (logs / "slurm-9.log").write_text(
        "ssl-launch: 2026-01-01 00:00:00: rank 1 on n1 failed first, with exit code 1; its\n"
    )
    (logs / "slurm-10.log").write_text(
        "ssl-launch: 2026-01-02 00:00:00: rank 2 on n7 failed first, with exit code 137; its\n"
    )
    return tmp_path


def test_logs_come_in_the_order_of_their_numbers(run_folder: Path) -> None:
    assert [path.stem for path in log_files(run_folder)] == [
        "slurm-9", "slurm-10", "rank-0", "rank-1", "rank-2", "rank-10"
    ]  # fmt: skip


def test_the_error_of_the_rank_that_failed_first_last_time_is_shown(run_folder: Path) -> None:
    assert first_failure(run_folder) == (
        "rank 2 on n7 failed first, with exit code 137:\n"
        "Traceback (most recent call last)\n  new\nValueError: new"
    )


def test_a_run_without_failure_shows_none(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/slurm-1.log").write_text("rank 1 on n1 failed first, with exit code 1\n")
    assert first_failure(tmp_path) == ""


def test_what_is_added_comes_line_by_line_with_who_said_it(run_folder: Path) -> None:
    follower = Follower(run_folder, before=1)
    assert "rank 0: this is 0" in list(follower.new_lines())
    assert list(follower.new_lines()) == []
    with (run_folder / "logs/rank-1.log").open("a") as file:
        file.write("more\nhalf a l")
        file.flush()
        assert list(follower.new_lines()) == ["rank 1: more"]
        file.write("ine\n")
    (run_folder / "logs/rank-3.log").write_text("late\n")
    assert list(follower.new_lines()) == ["rank 1: half a line", "rank 3: late"]


def test_the_command_shows_all(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["logs", str(run_folder), "--lines=1"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("rank 2 on n7 failed first")
    assert "rank 10: this is 10" in told
    assert "rank 10: hello" not in told


def test_a_folder_without_logs_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["logs", str(tmp_path)]) == 2
    assert "must hold a run's logs" in capsys.readouterr().err


def test_an_old_error_is_not_taken_for_that_of_the_last_start(run_folder: Path) -> None:
    with (run_folder / "logs/rank-2.log").open("a") as file:
        file.write("== 2026-01-02 00:00:00 rank 2 on n7: job 10, restart 0\nhello\n")
    assert first_failure(run_folder).endswith("exit code 137:\nhello")


def test_a_failure_that_comes_while_following_is_shown_once_as_a_block(run_folder: Path) -> None:
    follower = Follower(run_folder, before=1)
    assert not any("failed first" in line and "\n" in line for line in follower.new_lines())
    with (run_folder / "logs/rank-1.log").open("a") as file:
        file.write(
            "[rank1]: Traceback (most recent call last):\n[rank1]:   x\n[rank1]: OSError: a\n"
        )
    with (run_folder / "logs/slurm-10.log").open("a") as file:
        file.write(
            "ssl-launch: 2026-01-03 00:00:00: rank 1 on n1 failed first, with exit code 1; a\n"
        )
    told = list(follower.new_lines())
    block = (
        "\nrank 1 on n1 failed first, with exit code 1:\n"
        "Traceback (most recent call last):\n  x\nOSError: a\n"
    )
    assert told.count(block) == 1
    assert "rank 1: [rank1]: OSError: a" in told
    assert list(follower.new_lines()) == []


def test_a_log_that_goes_away_ends_nothing(run_folder: Path) -> None:
    follower = Follower(run_folder, before=1)
    assert list(follower.new_lines())
    (run_folder / "logs/rank-1.log").write_text("")
    (run_folder / "logs/rank-0.log").unlink()
    assert list(follower.new_lines()) == []
