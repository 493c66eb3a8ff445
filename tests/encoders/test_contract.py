"""The rule that ZeRO-3 needs, over every module class of the two rooms.

Its hooks see tensors among positional arguments and results, alone or in tuples, lists and dicts. A
module that takes or returns anything else owns no parameter itself.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor, nn

import ssl_scale.encoders
import ssl_scale.nn
from ssl_scale.encoders.encoder import Encoder
from ssl_scale.encoders.hf import HFEncoder
from ssl_scale.encoders.resnet import ResNet
from tests.encoders.inputs import KINDS
from tests.encoders.test_hf import TEXTS

PLAIN = (int, float, bool, str, NoneType)


def classes(base: type) -> Iterator[type]:
    for room in (ssl_scale.nn, ssl_scale.encoders):
        for info in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            module = importlib.import_module(info.name)
            for _, found in inspect.getmembers(module, inspect.isclass):
                if issubclass(found, base) and found.__module__ == info.name:
                    yield found


MODULES = list(classes(nn.Module))


def is_transparent(annotation: Any) -> bool:
    """Whether ZeRO-3's hooks find every tensor in a value of this type."""
    origin = get_origin(annotation)
    if origin is Literal:
        return True
    if origin in (tuple, list, dict, Union, UnionType):
        return all(is_transparent(inner) for inner in get_args(annotation) if inner is not ...)
    return inspect.isclass(annotation) and (
        issubclass(annotation, PLAIN)
        or issubclass(annotation, Tensor)
        # jaxtyping's shapes are classes that remember the array type.
        or issubclass(getattr(annotation, "array_type", NoneType), Tensor)
    )


def instances() -> list[nn.Module]:
    options: list[dict[str, Any]] = [
        {"registers": 1, "qk_norm": True, "layer_scale": 0.1, "mlp": "swiglu", "norm": "rms"},
        {"norm_first": False, "position": "sincos"},
        {"position": "rotary"},
    ]
    encoders = [make(**chosen) for make, _ in KINDS.values() for chosen in options]
    encoders.append(KINDS["vision"][0](mask_token=True))
    encoders.append(ResNet(preset="18", stem_width=4))
    encoders.append(HFEncoder(config=TEXTS["bert"]))
    return [module for encoder in encoders for module in encoder.modules()]


def test_the_walk_finds_the_modules() -> None:
    names = {found.__name__ for found in MODULES}
    assert {
        "Linear",
        "Attention",
        "Block",
        "Trunk",
        "VisionTransformer",
        "TextTransformer",
    } <= names
    built = {type(module) for module in instances()}
    not_built = {
        found.__name__ for found in MODULES if not inspect.isabstract(found) and found not in built
    }
    # `Tied` belongs to heads; the tests of its room build it.
    assert not_built <= {"Tied"}


@pytest.mark.parametrize("found", MODULES, ids=lambda found: found.__name__)
def test_owners_of_parameters_take_and_return_tensors(found: type[nn.Module]) -> None:
    owns = any(
        list(module.parameters(recurse=False)) for module in instances() if type(module) is found
    )
    if not owns:
        return
    hints = get_type_hints(found.forward)
    opaque = [name for name, annotation in hints.items() if not is_transparent(annotation)]
    assert not opaque, f"{found.__name__} owns parameters, but {opaque} hide tensors"
    keywords = [
        name
        for name, parameter in inspect.signature(found.forward).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    assert not keywords, f"{found.__name__} owns parameters, but takes {keywords} by keyword"


def test_the_rule_would_catch_an_offender() -> None:
    hints = get_type_hints(Encoder.forward)
    assert not is_transparent(hints["view"])
    assert not is_transparent(hints["return"])
    assert is_transparent(get_type_hints(nn.Linear.forward)["return"])


@pytest.mark.parametrize("kind", KINDS)
def test_encoders_own_no_parameter(kind: str) -> None:
    encoder = KINDS[kind][0](registers=2)
    assert not list(encoder.parameters(recurse=False))
    assert not list(encoder.trunk.parameters(recurse=False))


@pytest.mark.parametrize("found", MODULES, ids=lambda found: found.__name__)
def test_no_module_initialises_another(found: type[nn.Module]) -> None:
    """Every parameter has its final value when its owner's constructor ends."""
    finals: dict[int, Tensor] = {}
    original = found.__init__

    def remember(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if type(self) is found:
            finals.update((id(p), p.detach().clone()) for p in self.parameters(recurse=False))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(found, "__init__", remember)
        for make, _ in KINDS.values():
            encoder = make(registers=1, layer_scale=0.1).float()
            for parameter in encoder.parameters():
                if id(parameter) in finals:
                    torch.testing.assert_close(parameter.detach(), finals[id(parameter)].float())
