"""The benchmark runner, which needs no measuring to be tested."""

import pytest

from tests.benchmarks.run import Row, areas, machine, main, table

MET: Row = {
    "measure": "a step", "value": 0.12345, "unit": "s", "against": "a bare loop", "ratio": 1.02,
    "goal": "at most 1.05", "met": True,
}  # fmt: skip
BARE: Row = {
    "measure": "memory", "value": 12.0, "unit": "MiB", "against": None, "ratio": None,
    "goal": None, "met": None,
}  # fmt: skip


def test_a_table_shows_goals_that_are_missed() -> None:
    lines = table([MET, {**MET, "met": False}, BARE]).splitlines()
    assert lines[0].split() == ["measure", "value", "unit", "against", "ratio", "goal", "met"]
    assert " ".join(lines[2].split()) == "a step 0.1235 s a bare loop 1.02 at most 1.05 yes"
    assert lines[3].endswith("NO")
    assert lines[4].split() == ["memory", "12", "MiB", "-", "-", "-", "-"]


def test_the_machine_is_described() -> None:
    described = machine()
    assert described["cores"] >= 1
    assert described["memory_gib"] > 0
    assert described["cpu"]


def test_areas_are_the_files_of_the_folder() -> None:
    assert "startup" in areas()
    assert not {"run", "test_run", "__init__"} & set(areas())


def test_an_unknown_area_is_refused_with_those_that_exist(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["no-such-area"])
    assert "startup" in capsys.readouterr().err
