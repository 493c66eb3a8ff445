from pathlib import Path

import pytest

from ssl_scale.errors import RecipeError
from ssl_scale.recipe.entry import plain
from ssl_scale.recipe.extending import read_extended
from ssl_scale.recipe.faults import Faults
from ssl_scale.recipe.loading import load
from ssl_scale.recipe.overlay import overlay, override
from ssl_scale.recipe.reading import read_recipe
from tests.recipe.writing import SOUND, faults_of, write


@pytest.mark.parametrize(
    ("base", "top", "merged"),
    [
        ("{a: 1, b: {c: 2, d: 3}}", "{b: {c: 4}}", {"a": 1, "b": {"c": 4, "d": 3}}),
        ("{a: 1, b: 2}", "{b: null}", {"a": 1}),
        ("{a: [1, 2, 3]}", "{a: [4]}", {"a": [4]}),
        ("{a: {b: 1}}", "{a: 5}", {"a": 5}),
        ("{a: 5}", "{a: {b: 1}}", {"a": {"b": 1}}),
        ("{a: {type: X, b: 1}}", "{a: {type: Y, c: 2}}", {"a": {"type": "Y", "c": 2}}),
        ("{a: {type: X, b: 1}}", "{a: {type: X, c: 2}}", {"a": {"type": "X", "b": 1, "c": 2}}),
        ("{a: {type: X, b: 1}}", "{a: {c: 2}}", {"a": {"type": "X", "b": 1, "c": 2}}),
        ("{a: 1}", "{b: null}", {"a": 1, "b": None}),
    ],
)
def test_overlay(base: str, top: str, merged: object) -> None:
    assert plain(overlay(load(base, "base"), load(top, "top"))) == merged


@pytest.mark.parametrize(
    ("text", "merged"),
    [
        ("a.b=1e-3", {"a": {"b": 1e-3, "type": "X"}}),
        ("a.b=[1, {c: 2}]", {"a": {"b": [1, {"c": 2}], "type": "X"}}),
        ("a.b=null", {"a": {"type": "X"}}),
        ("a.type=Y", {"a": {"type": "Y"}}),
        ("a.c.d=x=y", {"a": {"b": 1, "type": "X", "c": {"d": "x=y"}}}),
        ("a=5", {"a": 5}),
    ],
)
def test_overrides(text: str, merged: object) -> None:
    faults = Faults()
    assert plain(override(load("a: {b: 1, type: X}", "mine"), text, faults)) == merged
    assert not faults.found


@pytest.mark.parametrize("text", ["a.b", "=1", "a..b=1", ".a=1"])
def test_a_malformed_override_is_a_fault(text: str) -> None:
    faults = Faults()
    override(load("a: 1", "mine"), text, faults)
    (fault,) = faults.found
    assert str(fault) == f"--set {text}: must read path.to.key=value"


def test_an_override_does_not_replace_a_list_by_a_mapping() -> None:
    faults = Faults()
    override(load("a: {b: [1, 2]}", "mine"), "a.b.0=5", faults)
    (fault,) = faults.found
    assert str(fault) == "--set a.b.0: a.b.0: a.b must be a mapping to hold '0', but is a list"


def test_faults_name_the_override_they_come_from(tmp_path: Path) -> None:
    path = write(tmp_path, SOUND)
    assert faults_of(path, "train.steps=many", "optim.lr=]") == [
        "--set optim.lr: : must be plain YAML: expected the node content, but found ']'",
        "--set train.steps: train.steps: must be a valid integer, but is 'many'",
    ]


def test_bases_are_laid_one_over_the_other_and_the_file_over_all(tmp_path: Path) -> None:
    write(tmp_path, "name: one\na: {x: 1, y: 1, z: 1}\n", "_base/one.yaml")
    write(tmp_path, "extends: one.yaml\na: {y: 2, z: 2}\n", "_base/two.yaml")
    path = write(tmp_path, "extends: [_base/one.yaml, _base/two]\na: {z: 3}\n")
    faults = Faults()
    assert plain(read_extended(path, faults)) == {"a": {"x": 1, "y": 2, "z": 3}}
    assert not faults.found


def test_faults_of_what_is_inherited_name_its_file(tmp_path: Path) -> None:
    write(tmp_path, "train: {steps: 10, log_evry: 1}\n", "_base/short.yaml")
    path = write(tmp_path, "extends: _base/short.yaml\n" + SOUND.replace("train: {steps: 10}", ""))
    with pytest.raises(RecipeError, match=r"_base/short.yaml:1: train.log_evry: .* 'log_every'"):
        read_recipe(path, require_data=False)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"mine": "extends: other.yaml", "other": "extends: mine.yaml"}, "extends this recipe"),
        ({"mine": "extends: mine.yaml"}, "extends this recipe in turn"),
        (
            {"mine": "extends: a", "a": "extends: b", "b": "extends: c", "c": "{}"},
            "must be at most 2 deep, but 'c' is reached at depth 3",
        ),
        ({"mine": "extends: nowhere.yaml"}, "'nowhere.yaml' is neither a file beside this one nor"),
        ({"mine": "extends: {a: b}"}, "must be a file or a list, but is a mapping"),
        ({"mine": "[1, 2]"}, "a recipe must be a mapping, but is a list"),
    ],
)
def test_extends_that_lead_nowhere_are_faults(
    files: dict[str, str], message: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        write(tmp_path, text, f"{name}.yaml")
    assert any(message in fault for fault in faults_of(tmp_path / "mine.yaml"))


def test_two_deep_is_allowed(tmp_path: Path) -> None:
    write(tmp_path, SOUND, "b.yaml")
    write(tmp_path, "extends: b.yaml\ntrain: {steps: 20}\n", "a.yaml")
    path = write(tmp_path, "extends: a.yaml\noptim: {lr: 0.5}\n")
    recipe = read_recipe(path, require_data=False)
    assert (recipe.train.steps, recipe.optim.arguments["lr"].arguments) == (20, {"value": 0.5})
    assert "extends" not in recipe.resolved


def test_recipes_in_base_never_run_alone(tmp_path: Path) -> None:
    path = write(tmp_path, SOUND, "_base/whole.yaml")
    with pytest.raises(RecipeError, match="never run alone"):
        read_recipe(path, require_data=False)


def test_null_removes_only_what_is_inherited(tmp_path: Path) -> None:
    write(tmp_path, SOUND, "base.yaml")
    path = write(tmp_path, "extends: base.yaml\nviews: {image: null, imag: null}\n")
    assert sorted(faults_of(path)) == [
        "13: objectives.all.encoder: reads the view 'image', named like its encoder, but views has "
        "no 'image'; add it, or name another; there is none",
        "2: views.imag: must not be empty; null removes only what is inherited",
    ]
