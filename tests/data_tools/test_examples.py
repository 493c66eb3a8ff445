"""The example data: captions that are true, splits that do not overlap, the same every time."""

import ast
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from ssl_scale_data_tools.cli import main
from ssl_scale_data_tools.example_digits import NAMES, describe
from ssl_scale_data_tools.example_stdlib import is_held_out


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def digits(module_path: Path) -> Path:
    assert run("example", "digits", module_path / "digits") == 0
    return module_path / "digits"


def keys(folder: Path, extension: str = "png") -> set[str]:
    return {path.stem for path in folder.glob(f"*.{extension}")}


def test_parts_of_the_digits_are_disjoint_from_the_test_and_whole(digits: Path) -> None:
    train, test = keys(digits / "train"), keys(digits / "test")
    assert (len(train), len(test), len(train | test)) == (1437, 360, 1797)
    assert keys(digits / "train_labelled") | keys(digits / "train_captioned") <= train
    assert len(keys(digits / "train_captioned")) == 150


def test_labels_are_those_of_the_data_and_balanced(digits: Path) -> None:
    target = load_digits().target
    for name, each in (("train_labelled", 5), ("test", 36)):
        counts: Counter[int] = Counter()
        for path in (digits / name).glob("*.cls"):
            label = int(path.read_text())
            assert label == target[int(path.stem.removeprefix("digit-"))]
            counts[label] += 1
        assert counts == {label: each for label in range(10)}


def test_no_label_is_where_none_belongs(digits: Path) -> None:
    assert keys(digits / "train_captioned", "cls") == set()
    for path in (digits / "train_captioned").glob("*.json"):
        assert set(json.loads(path.read_text())) == {
            "part",
            "named_class",
            "stroke",
            "slant",
            "place",
        }


def test_pixels_are_kept_to_the_last_grey(digits: Path) -> None:
    images = load_digits().images
    for path in (digits / "train").glob("*.png"):
        with Image.open(path) as image:
            grey = np.asarray(image).astype(float)
        assert grey.shape == (8, 8)
        np.testing.assert_array_equal(
            np.rint(grey * 16 / 255), images[int(path.stem.removeprefix("digit-"))]
        )


def test_a_caption_names_its_class_exactly_where_the_record_says_so(digits: Path) -> None:
    target = load_digits().target
    named = 0
    for path in (digits / "train_captioned").glob("*.txt"):
        text = path.read_text()
        record = json.loads(path.with_suffix(".json").read_text())
        mentioned = [name for name in NAMES if name in text.replace(",", " ").split()]
        truth = NAMES[target[int(path.stem.removeprefix("digit-"))]]
        assert mentioned == ([truth] if record["named_class"] else [])
        named += record["named_class"]
    assert named == 30
    for path in (digits / "test").glob("*.txt"):
        truth = NAMES[int(path.with_suffix(".cls").read_text())]
        assert truth in path.read_text().replace(",", " ").split()


def test_captions_say_what_their_pixels_show(digits: Path) -> None:
    images = load_digits().images
    for folder in ("train_captioned", "test"):
        for path in (digits / folder).glob("*.txt"):
            look = describe(images[int(path.stem.removeprefix("digit-"))])
            text = path.read_text()
            assert look.stroke in text and look.slant in text and look.place in text


def drawn(*strokes: tuple[int, int], ink: float = 16.0) -> NDArray[np.float64]:
    pixels = np.zeros((8, 8))
    for down, right in strokes:
        pixels[down, right] = ink
    return pixels


def test_looks_are_read_from_pixels() -> None:
    rising = drawn(*((7 - i, i) for i in range(8)))  # like /
    falling = drawn(*((i, i) for i in range(8)))  # like \
    bar = drawn(*((i, j) for i in range(8) for j in (3, 4)))
    assert describe(rising).slant == "leaning right"
    assert describe(falling).slant == "leaning left"
    assert describe(bar).slant == "upright"
    assert describe(bar).place == "centred"
    assert describe(rising).stroke == "light strokes"
    assert describe(np.full((8, 8), 5.0)).stroke == "medium strokes"
    assert describe(np.full((8, 8), 6.0)).stroke == "bold strokes"
    assert describe(drawn((0, 3), (0, 4))).place == "towards the top"
    assert describe(drawn((7, 3), (7, 4))).place == "towards the bottom"
    assert describe(drawn((3, 0), (4, 0))).place == "towards the left"
    assert describe(drawn((3, 7), (4, 7))).place == "towards the right"


def test_a_template_does_not_tell_the_class(digits: Path) -> None:
    starts: dict[int, set[str]] = {}
    for path in (digits / "test").glob("*.txt"):
        start = path.read_text().split()[1]  # differs between templates
        starts.setdefault(int(path.with_suffix(".cls").read_text()), set()).add(start)
    assert all(len(found) == 4 for found in starts.values())


def test_labelled_images_are_two_a_class_and_those_whose_captions_name_it(digits: Path) -> None:
    named = {
        path.stem
        for path in (digits / "train_captioned").glob("*.json")
        if json.loads(path.read_text())["named_class"]
    }
    labelled = keys(digits / "train_labelled")
    assert named <= labelled and (len(named), len(labelled)) == (30, 50)
    assert not (labelled - named) & keys(digits / "train_captioned")
    assert keys(digits / "train_labelled", "cls") == labelled


def test_writing_an_example_again_changes_nothing(digits: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in digits.rglob("*") if path.is_file()}
    assert run("example", "digits", digits) == 0
    after = {path: path.stat().st_mtime_ns for path in digits.rglob("*") if path.is_file()}
    assert after == before


def test_another_example_in_the_same_place_is_refused(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("example", "digits", digits, "--captions", 140) == 2
    assert "must be new or hold the same example" in capsys.readouterr().err


def test_too_many_labels_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("example", "digits", tmp_path, "--labels-per-class", 140) == 2
    assert "must be fewer than" in capsys.readouterr().err


@pytest.fixture(scope="module")
def stdlib(module_path: Path) -> Path:
    assert run("example", "stdlib", module_path / "stdlib", "--functions", 400) == 0
    return module_path / "stdlib"


def modules(folder: Path) -> set[str]:
    return {key.rpartition("-")[0] for key in keys(folder, "txt")}


def test_modules_are_held_out_whole(stdlib: Path) -> None:
    train, test = modules(stdlib / "train"), modules(stdlib / "test")
    assert train and test and not train & test
    assert all(is_held_out(module) for module in test)
    assert not any(is_held_out(module) for module in train)
    assert len(keys(stdlib / "train", "txt")) + len(keys(stdlib / "test", "txt")) == 400


def test_texts_are_functions_with_docstrings_and_none_comes_twice(stdlib: Path) -> None:
    texts = [path.read_text() for path in stdlib.rglob("*.txt")]
    assert len(set(texts)) == len(texts)
    for text in texts:
        (function,) = ast.parse(text).body
        assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        assert ast.get_docstring(function) is not None
        assert not text.startswith(" ")
        assert len(text) <= 2000


def test_examples_build_into_data_sets(digits: Path, tmp_path: Path) -> None:
    for name in ("train_captioned", "test"):
        assert run("build", digits / name, tmp_path / name, "--workers", 0) == 0
