"""Bytes of the tensors that a training engine holds on one rank, each storage counted once.

They are counted where most is alive: gradients are there, and so are the moments of an earlier
step. Nothing is asked of a formula: the tensors are found in the engine and measured.
"""

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ssl_scale import dist
from ssl_scale.plan.building import build_on_meta
from ssl_scale.plan.memory import RankBytes, bytes_per_rank
from ssl_scale.plan.parameters import Inventory, moments_of, take_stock
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.recipe.recipe import Recipe
from tests.train.tiny import fit_ranks

KINDS = ("parameters", "masters", "moments", "gradients", "teachers", "buckets")


def live_bytes(module: Any) -> dict[str, int]:
    """Kind -> bytes of a `PretrainingModule` in training, just before its optimizer steps."""
    zero, inner = module.sharded.zero, module.sharded.inner
    system = module.system
    teachers = {id(p) for teacher in system.teachers.values() for p in teacher.parameters()}
    students = [p for p in system.parameters() if id(p) not in teachers]
    taught = [p for p in system.parameters() if id(p) in teachers]
    flats = getattr(zero, "fp32_partitioned_groups_flat", None) or [
        flat for group in inner.param_groups for flat in group["params"]
    ]
    held: dict[str, list[Tensor]] = {
        "parameters": [tensor for p in students for tensor in _of_parameter(p)],
        "masters": [flat.data for flat in flats],
        "moments": [
            value
            for state in inner.state.values()
            for value in state.values()
            if isinstance(value, Tensor) and value.numel() > 1
        ],
        "gradients": [*_gradients_of(students), *_gradients_of(flats), *_gradients_in(zero)],
        "teachers": [
            *(tensor for p in taught for tensor in _of_parameter(p)),
            *(value for each in system.teachers.values() for value in each.fp32_shards().values()),
        ],
        "buckets": list(_tensors(_buckets(zero))),
    }
    seen: set[int] = set()
    return {kind: _count(held[kind], seen) for kind in KINDS}


def _count(tensors: Iterable[Tensor], seen: set[int]) -> int:
    total = 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() and storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += storage.nbytes()
    return total


def _of_parameter(parameter: nn.Parameter) -> Iterator[Tensor]:
    yield parameter.data
    if hasattr(parameter, "ds_tensor"):
        yield parameter.ds_tensor.data


def _gradients_of(parameters: Iterable[nn.Parameter]) -> Iterator[Tensor]:
    for parameter in parameters:
        yield from _tensors([parameter.grad, getattr(parameter, "grad_accum", None)])


def _gradients_in(zero: Any) -> Iterator[Tensor]:
    for name in ("averaged_gradients", "all_grad_tensors", "grad_partitions_flat_buffer"):
        yield from _tensors(getattr(zero, name, None))


def _buckets(zero: Any) -> list[Any]:
    return [bucket.buffer for bucket in getattr(zero, "ipg_buckets", {}).values()]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def note_before_step(folder: Path, step: int = 1) -> None:
    """Let every rank of a run write `live_bytes` to ``<folder>/rank-<r>.json``, once."""
    from ssl_scale.train.ops import Ops

    steps = Ops.step

    def note_and_step(self: Ops) -> bool:
        if self.index == step:
            page = folder / f"rank-{dist.rank()}.json"
            page.write_text(json.dumps(live_bytes(self.module)))
        return steps(self)

    Ops.step = note_and_step  # type: ignore[method-assign]


# A few million parameters, and all sources in every step.
SIZE = (
    *("encoders.image.width=256", "encoders.image.depth=3", "encoders.image.num_heads=4"),
    *("train.steps=2", "data.per_step=all", "data.global_batch=16"),
)


def measured(recipe: Path, folder: Path, world_size: int, *overrides: str) -> list[dict[str, int]]:
    """Train two steps in real ranks; what each of them held before the second was taken.

    Args:
        recipe: the tiny recipe, made larger by `SIZE`.
        folder: of notes and of the run.
        world_size: number of processes.
        overrides: of the recipe.
    """
    folder.mkdir(parents=True)
    note = partial(note_before_step, folder)
    codes = fit_ranks(recipe, folder / "run", world_size, *SIZE, *overrides, change=note)
    if any(codes):
        raise RuntimeError(f"all ranks must end with 0, but ended with {codes}")
    pages = [folder / f"rank-{rank}.json" for rank in range(world_size)]
    return [json.loads(page.read_text()) for page in pages]


def planned(recipe: Path, world_size: int, *overrides: str) -> RankBytes:
    """What `ssl_scale.plan` says of the same ranks."""
    read = read_recipe(recipe, [*SIZE, *overrides])
    inventory, moments = stock_of(read)
    return bytes_per_rank(
        inventory, read.train.zero, read.train.precision, world_size, moments, overlaps=False
    )


def stock_of(recipe: Recipe) -> tuple[Inventory, int]:
    """A recipe's tensors, and its optimizer's moments."""
    optim = recipe.optim.build(global_batch=recipe.data.global_batch)
    return take_stock(build_on_meta(recipe), optim), moments_of(optim)
