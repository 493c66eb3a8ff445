"""No module that speaks in views, features or losses owns a parameter: ZeRO-3 would not see it."""

import inspect
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import nn

from ssl_scale.encoders.encoder import Encoder
from ssl_scale.objectives.objective import Objective
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.system.build import build_system
from ssl_scale.system.system import System
from ssl_scale.types import Batch, Features, Layout, Loss, Mask, Step, View
from tests.train.tiny import make_recipe

OPAQUE = (View, Features, Loss, Step, Mask, Batch, Layout)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    folder = tmp_path_factory.mktemp("tiny")
    make_recipe(folder)
    bindings = {"tokenizer": str(folder / "tokenizer.json")}
    return build_system(read_recipe("demo", [], bindings, require_data=False))


def mentions_opaque(annotation: Any) -> bool:
    return annotation in OPAQUE or any(map(mentions_opaque, get_args(annotation)))


def speaks_in_opaque(module: nn.Module) -> bool:
    """Whether a dataclass, into which DeepSpeed does not look, crosses the module's border."""
    hints = get_type_hints(type(module).forward)
    return any(mentions_opaque(hint) for hint in hints.values())


def offenders(root: nn.Module) -> list[str]:
    return [
        name
        for name, module in root.named_modules()
        if speaks_in_opaque(module) and any(True for _ in module.parameters(recurse=False))
    ]


def test_no_part_of_the_demo_owns_parameters_directly(system: System) -> None:
    speakers = [module for module in system.modules() if speaks_in_opaque(module)]
    assert sum(isinstance(module, Encoder) for module in speakers) >= 3  # one is the teacher's
    assert sum(isinstance(module, Objective) for module in speakers) == len(system.objectives)
    assert offenders(system) == []


def test_one_that_did_would_be_found() -> None:
    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mask_token = nn.Parameter(torch.zeros(3))

        def forward(self, view: View, mask: Mask | None = None) -> list[Features]:
            return []

    assert offenders(nn.Sequential(Owner())) == ["0"]


def test_modules_that_own_parameters_say_what_they_take(system: System) -> None:
    silent = [
        name
        for name, module in system.named_modules()
        if any(True for _ in module.parameters(recurse=False))
        and not type(module).__module__.startswith("torch.")
        and "return" not in inspect.get_annotations(type(module).forward)
    ]
    assert silent == []


def test_every_parameter_is_registered_once(system: System) -> None:
    names = [name for name, _ in system.named_parameters(remove_duplicate=False)]
    assert len(names) == len(dict(system.named_parameters()))


def test_a_teachers_paths_are_the_students(system: System, tmp_path: Path) -> None:
    students = dict(system.named_parameters())
    taught = dict(system.teachers["ema"].named_parameters())
    assert taught and taught.keys() <= students.keys()
    for name, parameter in taught.items():
        assert torch.equal(parameter, students[name]) and parameter is not students[name]
