"""The JSON Schema accepts what ships and marks what the reader would refuse."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ssl_scale.recipe.finding import shipped_folder
from ssl_scale.recipe.schema import recipe_schema

SHIPPED = sorted(path for path in shipped_folder().rglob("*.yaml") if path.parent.name != "results")


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def faults(validator: Any, recipe: str) -> str:
    return "; ".join(error.message for error in validator.iter_errors(yaml.safe_load(recipe)))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_fit(path: Path, validator: Any) -> None:
    assert not faults(validator, path.read_text())


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("objectives: {a: {type: NTXent, temprature: 0.1}}", "'temprature' was unexpected"),
        ("objectives: {a: {type: NTXnt}}", "'NTXnt'"),
        ("objectives: {a: {type: NTXent, temperature: cold}}", "'cold'"),
        ("objectives: {a: {type: NTXent, projector: {type: MLPProjector, hiden: 3}}}", "'hiden'"),
        ("train: {zero: 4}", "4"),
        ("data: {sources: {a: {wieght: 2}}}", "'wieght' was unexpected"),
        ("traim: {}", "'traim' was unexpected"),
    ],
)
def test_mistakes_are_marked(recipe: str, expected: str, validator: Any) -> None:
    assert expected in faults(validator, recipe)


def test_a_part_of_ones_own_and_what_extends_another_recipe_pass(validator: Any) -> None:
    assert not faults(validator, "objectives: {a: {type: 'my.module:Mine', anything: 3}}")
    assert not faults(validator, "{extends: [demo], objectives: {clip: null, mae: {weight: 2}}}")


def test_arguments_bear_their_words_from_the_docstring() -> None:
    branches = recipe_schema()["$defs"]["Objective"]["allOf"]
    (then,) = [b["then"] for b in branches if b["if"]["properties"]["type"]["const"] == "NTXent"]
    assert then["properties"]["temperature"]["description"] == "softmax temperature."
    assert then["properties"]["temperature"]["default"] == 0.1
    assert "2002.05709" in then["description"] and "width" not in then["properties"]
