"""`ssl-data bench`: it reads what training would, and its verdict follows from its timings."""

import json
from pathlib import Path

import pytest
from ssl_scale_data_tools.cli import main
from ssl_scale_data_tools.loader_bench import LoaderBench, Speed, numbers_of_workers
from ssl_scale_data_tools.loader_verdict import draw_table, find_bound

from ssl_scale.recipe.reading import read_recipe
from tests.train.tiny import make_recipe

FIELDS = {"a.image": 100.0, "a.text": 20.0}


def speed(
    workers: int, rate: float, read: float = 1, decode: float = 1, collate: float = 1
) -> Speed:
    return Speed(workers, 0.5, int(rate), 1.0, read, decode, collate, 10**6, 0)


def test_what_is_tried_goes_up_to_the_cpus_unless_told() -> None:
    assert numbers_of_workers(3, 12, None) == [0, 1, 2, 3, 4, 8, 12]
    assert numbers_of_workers(20, 2, None) == [0, 1, 2, 20]
    assert numbers_of_workers(3, 12, [5, 1, 5]) == [1, 5]


@pytest.mark.parametrize(
    ("speeds", "own", "by", "change"),
    [
        ([speed(0, 100), speed(1, 110), speed(4, 380), speed(8, 400)], 1, "workers", "to 4"),
        ([speed(0, 400), speed(2, 200)], 2, "workers", "to 0"),
        ([speed(0, 100), speed(2, 200, read=9)], 2, "disk", "faster disk"),
        ([speed(0, 100), speed(2, 200, decode=9)], 2, "decode", "'a.image'"),
        ([speed(0, 100), speed(4, 200, decode=9)], 4, "CPUs", "more CPUs"),
        ([speed(0, 100, collate=9)], 0, "collate", "one shape"),
        ([speed(1, 100), speed(2, 105, read=9)], 7, "disk", "faster disk"),
    ],
)
def test_the_verdict_follows_from_the_timings(
    speeds: list[Speed], own: int, by: str, change: str
) -> None:
    bound = find_bound(speeds, FIELDS, own, cpus=4)
    assert bound.by == by
    assert change in bound.change


def test_the_table_marks_the_recipes_number_of_workers() -> None:
    head, zero, two = draw_table([speed(0, 1234), speed(2, 99)], own=2).splitlines()
    assert "samples/s" in head
    assert zero.split()[:3] == ["0", "1,234", "1.0"]
    assert two.startswith("2 (recipe)")
    assert "33%" in two


def test_the_command_reads_what_training_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(tmp_path)
    told = ["--workers", "0", "2", "--seconds", "0.05", "--cold", "--json"]
    assert main(["bench", str(recipe), "--set", "train.steps=4000", *told]) == 0
    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert [each["workers"] for each in figures["speeds"]] == [0, 2]
    assert all(each["samples"] > 0 and each["read_bytes"] > 0 for each in figures["speeds"])
    assert set(figures["fields_us"]) == {"pictures.image", "pictures.label", "texts.text"}
    assert "2 workers" in err
    assert main(["bench", str(recipe), "--workers", "0", "--seconds", "0.01"]) == 0
    assert "bound by " in capsys.readouterr().out


def test_weights_that_would_be_learned_are_taken_as_they_begin(tmp_path: Path) -> None:
    learned = "data.mixture.learned={type: BanditWeights, every: 2}"
    recipe = read_recipe(make_recipe(tmp_path), ["train.steps=4000", learned])
    assert LoaderBench(recipe, seconds=0.05, cold=False).measure(0).samples > 16


def test_a_run_too_short_to_be_timed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(tmp_path)
    assert main(["bench", str(recipe), "--set", "train.steps=1"]) == 2
    assert "train.steps" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--seconds", "0"], ["--workers", "-1"]])
def test_impossible_measurements_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str]
) -> None:
    assert main(["bench", str(make_recipe(tmp_path)), *wrong]) == 2
    assert wrong[0] in capsys.readouterr().err
