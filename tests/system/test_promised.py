"""Parts that will start from a run that has not begun: names and shapes are compared before."""

import json
from pathlib import Path

import pytest
import torch

from ssl_scale.cli.main import main
from ssl_scale.recipe.reading import read_recipe, read_roles
from ssl_scale.system.build import build_system
from tests.train.tiny import make_recipe


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return make_recipe(tmp_path)


def second(first: Path, entry: str, role: str = "previous") -> Path:
    path = first.with_name("second.yaml")
    path.write_text(f"extends: {first.name}\ninit_from: [{{run: {role}, {entry}}}]\n")
    return path


def check(recipe: Path, first: Path, *more: str) -> int:
    run = first.parent / "runs/first"
    bound = [f"--data=previous={run}", f"--run-of=previous={first}"]
    return main(["check", str(recipe), *bound, *more])


def test_parts_that_the_other_recipe_has_are_accepted_before_it_has_run(first: Path) -> None:
    parts = "parts: [encoders.image, objectives.byol.projector], teacher: ema"
    assert check(second(first, parts), first) == 0
    assert not (first.parent / "runs").exists()


@pytest.mark.parametrize(
    ("entry", "more", "told"),
    [
        (
            "parts: [encoders.image], rename: {encoders.image: encoders.vision}",
            "train.seed=0",
            "tiny.yaml must hold encoders.vision, but holds",
        ),
        ("parts: [objectives.byol.projektor]", "train.seed=0", "byol has no 'projektor'"),
        ("parts: [encoders.image], teacher: em", "train.seed=0", "['ema'], but is 'em'"),
        ("parts: [encoders.image]", "encoders.image.width=12", "must be [12]"),
        ("parts: [encoders.image]", "encoders.image.depth=2", "lacks trunk.blocks.1"),
    ],
)
def test_what_the_other_recipe_will_not_have_is_told(
    entry: str, more: str, told: str, first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(second(first, entry), first, f"--set={more}") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: init_from[0]: ") and told in said


def test_what_is_promised_is_what_the_checkpoint_has(first: Path) -> None:
    # Nothing may be refused here that the run itself would accept, or the other way about.
    system = build_system(read_recipe(first))
    with torch.device("meta"):
        bare = build_system(read_recipe(first), initial=False)
    names = {name for name, _ in [*system.named_parameters(), *system.named_buffers()]}
    assert names == {name for name, _ in [*bare.named_parameters(), *bare.named_buffers()]}


def test_the_role_of_a_run_must_be_named_and_bound(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = second(first, "parts: [encoders.image]")
    assert main(["check", str(recipe), "--run-of=previous"]) == 3
    assert main(["check", str(first), f"--run-of=previous={first}"]) == 2
    assert "--run-of previous must be a role that is bound" in capsys.readouterr().err


def test_roles_are_told_with_what_names_them(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = second(first, "parts: [encoders.image]")
    assert main(["show", str(recipe), "--roles"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == read_roles(recipe)
    assert found["previous"] == ["init_from[0].run"]
    assert found["tokenizer"] == ["data.fields.text.tokenizer"]
    assert read_roles(second(first, "parts: [encoders.image]", "./somewhere")).keys() == {
        "pictures",
        "tokenizer",
    }


def test_every_variant_is_checked_and_the_wrong_one_named(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = first.with_name("variants.json")
    file.write_text(json.dumps([["train.steps=3"], ["train.steps=4", "train.seed=1"]]))
    command = ["check", str(first), f"--variants={file}", "--set=train.seed=7"]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["steps"] for each in told["variants"]] == [3, 4]
    file.write_text(json.dumps([["train.steps=3"], ["optim.lr=1", "train.zero=7"]]))
    assert main(command) == 2
    assert "with optim.lr=1, train.zero=7: --set train.zero:" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", '{"a": 1}', '["a=1"]', "[[1]]"])
def test_variants_that_are_no_lists_of_overrides_are_refused(
    text: str, first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = first.with_name("variants.json")
    file.write_text(text)
    assert main(["check", str(first), f"--variants={file}"]) == 2
    assert "variants.json: must be" in capsys.readouterr().err


def test_every_variant_is_planned(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = first.with_name("variants.json")
    file.write_text(json.dumps([["train.steps=3"], ["train.steps=4"]]))
    assert main(["plan", str(first), f"--variants={file}"]) == 0
    assert [each["run"]["steps"] for each in json.loads(capsys.readouterr().out)] == [3, 4]
