"""Tensors of which only the places are real: values stay on the meta device, indices are computed.

What a forward pass costs depends on shapes, and some shapes on which tokens are hidden, absent or
padded. Those are found from whole numbers and truth values, which are cheap; pixels, features and
gradients are not. So, inside `places_only`, an operation on tensors of the host runs as always, and
one that also takes a meta tensor moves its other tensors to the meta device first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_META = torch.device("meta")
_WHOLE = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64},
)


@contextmanager
def places_only() -> Iterator[None]:
    """Run modules whose parameters are on the meta device."""
    with _Dispatch(), _Functions():  # type: ignore[no-untyped-call]
        yield


class _Functions(TorchFunctionMode):
    """What must be caught before torch turns it into operations."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """One call."""
        kwargs = dict(kwargs or {})
        if func is torch.tensor and kwargs.get("device") == _META:
            del kwargs["device"]  # its numbers are known
        return func(*args, **kwargs)


class _Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets tensors of the host and of the meta device meet in one operation."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """One operation."""
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        valued = any(tensor.is_meta for tensor in tensors)
        if not valued:
            if kwargs.get("device") == _META and _stays_real(tensors, kwargs):
                kwargs["device"] = torch.device("cpu")
            return func(*args, **kwargs)
        if all(tensor.is_meta for tensor in tensors):
            return func(*args, **kwargs)
        changed = _changed(func, args)
        if changed is not None and not changed.is_meta:
            return changed  # its values would come from nowhere; its shape is known
        args = tuple(map(_as_numbers, args))
        return func(*tree_map(_to_meta, args), **tree_map(_to_meta, kwargs))


def _stays_real(tensors: list[Tensor], kwargs: dict[str, Any]) -> bool:
    """Whether an operation that is to make a meta tensor makes whole numbers."""
    dtype = kwargs.get("dtype")
    if dtype is None and tensors:
        dtype = tensors[0].dtype
    return dtype in _WHOLE


def _changed(func: Any, args: tuple[Any, ...]) -> Tensor | None:
    """The tensor that an operation writes into."""
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            return value if isinstance(value, Tensor) else None
    return None


def _as_numbers(argument: Any) -> Any:
    """Indices that are truth values as numbers: how many are true is known here only."""
    if not isinstance(argument, list | tuple):
        return argument
    if not any(_is_mask(entry) for entry in argument):
        return argument
    found: list[Any] = []
    for entry in argument:
        found.extend(entry.nonzero().unbind(1) if _is_mask(entry) else [entry])
    return found


def _is_mask(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_meta and value.dtype == torch.bool


def _to_meta(value: Any) -> Any:
    if isinstance(value, Tensor) and not value.is_meta:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=_META)
    return value
