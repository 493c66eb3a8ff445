"""Tasks are done once, wholly or not at all, whatever kills them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pytest
from ssl_scale_data_tools.executors import LocalExecutor, default_workers
from ssl_scale_data_tools.work import (
    Executor,
    Marker,
    Stage,
    Task,
    TaskResult,
    finish_task,
    read_marker,
    run_stage,
    work_folder,
    written_atomically,
)

from ssl_scale.errors import DataError
from tests.data_tools import stages
from tests.data_tools.stages import stage_of, tasks_of

ROOT = Path(__file__).parents[2]


def run(
    stage: Stage,
    tasks: list[Task],
    workers: int = 0,
    executor: Executor | None = None,
    **options: bool,
) -> tuple[list[Marker], list[str], list[str]]:
    """Markers, names of tasks that were run, and what was announced."""
    ran: list[str] = []
    told: list[str] = []
    with work_folder(stage.folder):
        markers = run_stage(
            stage,
            tasks,
            executor or LocalExecutor(),
            workers,
            lambda task, _: ran.append(task.name),
            told.append,
            **options,
        )
    return markers, ran, told


def outputs(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_tasks_leave_files_and_markers(tmp_path: Path, workers: int) -> None:
    stage = stage_of(stages.write, tmp_path)
    markers, ran, _ = run(stage, tasks_of("a", "b", "c"), workers)
    assert outputs(tmp_path) == {f"{name}.out": f"content of {name}" for name in "abc"}
    assert (stage.markers / "b.part").read_text() == "part"
    assert [marker.task for marker in markers] == ["a", "b", "c"]
    assert sorted(ran) == ["a", "b", "c"]
    assert markers[1].files == {"b.out": 12, "private/b.part": 4}
    assert markers[1].counts == {"items": 1} and markers[1].details == {"payload": "b"}
    assert not stage.aside.exists()


def test_a_second_run_does_nothing_and_says_so(tmp_path: Path) -> None:
    stage = stage_of(stages.write, tmp_path)
    first, _, _ = run(stage, tasks_of("a", "b"))
    second, ran, told = run(stage, tasks_of("a", "b"))
    assert second == first and ran == []
    assert told == ["2 of 2 tasks were done before and are kept"]


def change_input(stage: Stage) -> tuple[Stage, list[Task]]:
    return stage, tasks_of("a", "b", salt="!")


def change_settings(stage: Stage) -> tuple[Stage, list[Task]]:
    return stage_of(stages.write, stage.folder, config="other"), tasks_of("a", "b")


def change_version(stage: Stage) -> tuple[Stage, list[Task]]:
    return stage_of(stages.write, stage.folder, version=2), tasks_of("a", "b")


def cut_files(stage: Stage) -> tuple[Stage, list[Task]]:
    (stage.folder / "a.out").write_text("cut")
    (stage.markers / "b.part").unlink()
    return stage, tasks_of("a", "b")


def tear_markers(stage: Stage) -> tuple[Stage, list[Task]]:
    (stage.markers / "a.json").write_text('{"task": "a", "inp')
    (stage.markers / "b.json").write_text("[]")
    return stage, tasks_of("a", "b")


@pytest.mark.parametrize(
    "change", [change_input, change_settings, change_version, cut_files, tear_markers]
)
def test_a_task_is_redone_where_anything_it_rests_on_changed(
    tmp_path: Path, change: Callable[[Stage], tuple[Stage, list[Task]]]
) -> None:
    stage = stage_of(stages.write, tmp_path)
    run(stage, tasks_of("a", "b"))
    _, ran, _ = run(*change(stage))
    assert ran == ["a", "b"]
    assert outputs(tmp_path)["a.out"] == "content of a"


def test_files_of_a_former_input_go(tmp_path: Path) -> None:
    stage = stage_of(stages.write, tmp_path)
    run(stage, [Task("a", "old", "1")])
    run(stage, [Task("a", "new", "2")])
    assert set(outputs(tmp_path)) == {"new.out"}


def test_a_killed_worker_is_replaced_and_its_half_file_never_seen(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    stage = stage_of(stages.die_once, tmp_path / "out")
    _, ran, _ = run(stage, tasks_of("a", "b", "c", "d", memory=memory), workers=2)
    assert sorted(ran) == ["a", "b", "c", "d"]
    assert outputs(stage.folder) == {f"{name}.out": f"content of {name}" for name in "abcd"}
    assert sorted(path.name for path in memory.iterdir()) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_kills_its_worker_thrice_is_set_aside_and_the_others_end(
    tmp_path: Path, workers: int
) -> None:
    stage = stage_of(stages.die_if_bad, tmp_path)
    with pytest.raises(DataError, match="bad: must finish, but killed its worker .* 3 times"):
        run(stage, tasks_of("a", "bad", "b", "c"), workers)
    assert set(outputs(tmp_path)) == {"a.out", "b.out", "c.out"}
    assert read_marker(stage, "bad") is None


def test_a_task_over_its_time_limit_is_ended(tmp_path: Path) -> None:
    stage = stage_of(stages.never_end, tmp_path, time_limit_s=0.2)
    with pytest.raises(DataError, match="bad: must finish, but ran past the time limit of 0.2 s"):
        run(stage, tasks_of("a", "bad", "b"), workers=2)
    assert set(outputs(tmp_path)) == {"a.out", "b.out"}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failure_of_the_input_is_named_and_leaves_nothing(tmp_path: Path, workers: int) -> None:
    stage = stage_of(stages.fail_if_bad, tmp_path)
    with pytest.raises(DataError, match="^bad must be good, but is bad$"):
        run(stage, tasks_of("a", "bad"), workers)
    assert set(outputs(tmp_path)) == {"a.out"}


def test_all_failures_are_counted_where_the_stage_goes_on(tmp_path: Path) -> None:
    stage = stage_of(stages.fail_if_bad, tmp_path)
    with pytest.raises(DataError, match="bad1 must be good.*and 1 more like it"):
        run(stage, tasks_of("bad1", "a", "bad2", "b"), stop_at_first=False)
    assert set(outputs(tmp_path)) == {"a.out", "b.out"}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_of_ours_keeps_its_traceback(tmp_path: Path, workers: int) -> None:
    stage = stage_of(stages.fail_if_bad, tmp_path)
    with pytest.raises(RuntimeError, match="broken: ZeroDivisionError: ours") as caught:
        run(stage, tasks_of("broken"), workers)
    assert "fail_if_bad" in caught.value.__notes__[0]


class Unruly:
    """An executor that reorders tasks and runs each twice, as schedulers do."""

    def run(
        self, stage: Stage, tasks: Sequence[Task], workers: int
    ) -> Generator[TaskResult, None, None]:
        for task in reversed(tasks):
            finish_task(stage, task)
            finish_task(stage, task)
            yield TaskResult(task.name, "done")


class Boastful:
    """An executor that says done and does nothing."""

    def run(
        self, stage: Stage, tasks: Sequence[Task], workers: int
    ) -> Generator[TaskResult, None, None]:
        for task in tasks:
            yield TaskResult(task.name, "done")


def test_counts_come_from_the_markers_and_in_the_order_of_the_tasks(tmp_path: Path) -> None:
    markers, _, _ = run(stage_of(stages.write, tmp_path), tasks_of("a", "b"), executor=Unruly())
    assert [marker.task for marker in markers] == ["a", "b"]
    assert sum(marker.counts["items"] for marker in markers) == 2


def test_an_executor_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a: must leave its files and a marker"):
        run(stage_of(stages.write, tmp_path), tasks_of("a"), executor=Boastful())


def test_two_runs_never_write_one_folder(tmp_path: Path) -> None:
    with (
        work_folder(tmp_path),
        pytest.raises(DataError, match="one command at a time"),
        work_folder(tmp_path),
    ):
        pass


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError), written_atomically(path) as handle:
        handle.write(b"half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_worker_outlives_a_killed_driver(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    script = (
        "from pathlib import Path\n"
        "from ssl_scale_data_tools.executors import LocalExecutor\n"
        "from tests.data_tools.stages import hold, stage_of, tasks_of\n"
        f"stage = stage_of(hold, Path({str(tmp_path / 'out')!r}))\n"
        f"tasks = tasks_of('a', 'b', memory=Path({str(memory)!r}))\n"
        "if __name__ == '__main__':\n"
        "    list(LocalExecutor().run(stage, tasks, 2))\n"
    )
    (tmp_path / "driver.py").write_text(script)
    driver = subprocess.Popen(
        [sys.executable, str(tmp_path / "driver.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,  # the resource tracker complains after a kill
    )
    try:
        wait_until(lambda: len(list(memory.iterdir())) == 2, driver)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    workers = [int(path.suffix[1:]) for path in memory.iterdir()]
    wait_until(lambda: not any(is_running(pid) for pid in workers))


def wait_until(
    happened: Callable[[], bool], process: "subprocess.Popen[bytes] | None" = None
) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_one_task_gets_no_worker_of_its_own() -> None:
    assert default_workers(1) == 0
    assert 1 <= default_workers(2) <= 2
