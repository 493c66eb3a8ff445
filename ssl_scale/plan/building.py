"""A recipe's system without values, and batches of the recipe's shapes without samples.

Nothing is read but the recipe: what data decide must be told.
"""

from typing import Any

import torch
from torch import Tensor

from ssl_scale.data.decoding import FieldDecoder, LabelField, NumberField
from ssl_scale.data.text_field import TextField
from ssl_scale.errors import DataError, RecipeError, UnboundDataError
from ssl_scale.part import Spec
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.system.build import build_system
from ssl_scale.system.system import System
from ssl_scale.types import DTYPES, Batch, Packed, Ragged


def build_on_meta(recipe: Recipe, vocab_size: int | None = None) -> System:
    """The recipe's system in its precision, on the meta device: shapes alone.

    Args:
        recipe: a checked recipe; its data need not be bound.
        vocab_size: of texts; asked of the tokenizer unless told.

    Raises:
        RecipeError: parts do not fit together.
        UnboundDataError: the vocabulary is needed and not known.
    """
    dtype = DTYPES[recipe.train.precision]
    sizes = sizes_of(recipe, vocab_size)
    with torch.device("meta"):
        system = build_system(recipe, dtype, initial=False, sizes=sizes)
    if dtype == torch.float32:
        return system
    for parameter in system.parameters():
        parameter.data = parameter.data.to(dtype)
    return system


def build_with_values(recipe: Recipe, vocab_size: int | None = None) -> System:
    """The recipe's system in fp32 on the host, as it starts without any given weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        return build_system(recipe, initial=False, sizes=sizes_of(recipe, vocab_size))


def sizes_of(recipe: Recipe, vocab_size: int | None) -> dict[str, Any]:
    """The run-time values that fields decide."""
    fields = recipe.data.fields
    sizes: dict[str, Any] = {
        "classes": {
            name: spec.arguments["num_classes"]
            for name, spec in fields.items()
            if issubclass(spec.part, LabelField)
        }
    }
    texts = {name: spec for name, spec in fields.items() if issubclass(spec.part, TextField)}
    for name, spec in texts.items():
        if vocab_size is None:
            vocab_size = _vocabulary(recipe, name, spec)
    if vocab_size is not None:
        sizes |= {"vocab_size": vocab_size, "mask_token": 0}
    return sizes


def _vocabulary(recipe: Recipe, name: str, spec: Spec[FieldDecoder]) -> int:
    try:
        field = spec.build(paths=dict(recipe.paths))
    except DataError as error:
        role = spec.arguments["tokenizer"]
        raise UnboundDataError(
            f"data.fields.{name}: how many tokens there are must be known, but the tokenizer is "
            f"not: add --vocab-size N, or --data {role}=PATH ({error})"
        ) from error
    assert isinstance(field, TextField)
    return field.vocab_size


def make_batch(recipe: Recipe, source: str, num: int, device: torch.device) -> Batch:
    """A batch of one source in which every sample has every field, as long as it may be.

    Args:
        recipe: a checked recipe.
        source: a training source.
        num: samples.
        device: of pictures and other values; labels, token ids and lengths are on the host.

    Raises:
        RecipeError: a field's shape is known from data only.
    """
    plan = recipe.data.sources[source]
    fields: dict[str, Tensor | Ragged | Packed] = {}
    for name in plan.fields:
        value = _values(name, recipe.data.fields[name], num, device)
        if isinstance(value, Ragged) and plan.pack and name == plan.lengths:
            fields[name] = Packed.of(value)
        else:
            fields[name] = value
    seeds = torch.arange(num, dtype=torch.int64)
    return Batch(source, fields, seeds, tuple(str(number) for number in range(num)))


def _values(name: str, spec: Spec[FieldDecoder], num: int, device: torch.device) -> Tensor | Ragged:
    if issubclass(spec.part, TextField):
        length = spec.arguments["max_tokens"]
        return Ragged(torch.ones(num, length, dtype=torch.int64), torch.full((num,), length))
    field = spec.build()
    if isinstance(field, LabelField):
        return field.collate([[0] if field.multiple else 0] * num)
    if isinstance(field, NumberField):
        return field.collate([0.0] * num)
    one = field.collate([field.missing()])
    if isinstance(one, Ragged):
        raise RecipeError(
            f"data.fields.{name}: must have values of one shape, or be texts, to be planned, but "
            f"is {spec.part.__name__} with lengths that only the data tell"
        )
    return torch.zeros(num, *one.shape[1:], dtype=one.dtype, device=device)
