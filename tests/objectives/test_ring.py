"""Sigmoid contrast over a ring of ranks: the same as the full matrix, which no rank ever holds."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ssl_scale import dist
from ssl_scale.objectives.sigmoid_contrast import sigmoid_contrast
from tests.distributed import run_ranks

pytestmark = pytest.mark.dist
WIDTH = 3
SPLITS = [[7], [4, 3], [0, 7], [7, 0], [2, 0, 1, 4]]


def pairs(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    left, right = torch.randn(2, count, WIDTH, generator=generator, dtype=torch.float64)
    return F.normalize(left, dim=1), F.normalize(right, dim=1)


def mine(rows: Tensor, split: list[int]) -> Tensor:
    return rows.split(split)[dist.rank()].clone().requires_grad_()


def numbers() -> tuple[Tensor, Tensor]:
    return (
        torch.tensor(4.0, dtype=torch.float64, requires_grad=True),
        torch.tensor(-1.5, dtype=torch.float64, requires_grad=True),
    )


def around(split: list[int]) -> tuple[list[Tensor], Tensor]:
    """What the ring brings, and the gradient of a loss that weighs rank, row and hop."""
    rows = torch.arange(sum(split) * 2, dtype=torch.float64).view(-1, 2)
    local = mine(rows, split)
    seen = list(dist.ring(local))
    factor = dist.rank() + 1
    torch.stack([(hop + 1) * factor * part.square().sum() for hop, part in enumerate(seen)]).sum(
    ).backward()  # fmt: skip
    assert local.grad is not None
    return [part.detach() for part in seen], local.grad


@pytest.mark.parametrize("split", SPLITS)
def test_every_rank_sees_all_rows_in_turn_and_gradients_come_back(split):
    rows = torch.arange(sum(split) * 2, dtype=torch.float64).view(-1, 2).split(split)
    size = len(split)
    for rank, (seen, gradient) in enumerate(run_ranks(around, size, split)):
        for hop, part in enumerate(seen):
            assert torch.equal(part, rows[(rank - hop) % size])
        # After `hop` steps a rank's rows are at the rank as far ahead.
        weight = sum((hop + 1) * ((rank + hop) % size + 1) for hop in range(size))
        torch.testing.assert_close(gradient, 2 * weight * rows[rank])


def over_the_ring(split: list[int]) -> dict[str, Tensor]:
    left, right = (mine(rows, split) for rows in pairs(sum(split)))
    scale, bias = numbers()
    loss = sigmoid_contrast(left, dist.ring(right), scale, bias)
    loss.backward()
    assert left.grad is not None and right.grad is not None
    total, t, b = (dist.reduce(x) for x in (loss.detach(), scale.grad, bias.grad))  # type: ignore[arg-type]
    return {"loss": total, "left": left.grad, "right": right.grad, "scale": t, "bias": b}


def full_matrix(count: int) -> dict[str, Tensor]:
    left, right = (rows.requires_grad_() for rows in pairs(count))
    scale, bias = numbers()
    signs = 2 * torch.eye(count, dtype=torch.float64) - 1
    loss = -F.logsigmoid(signs * (scale * left @ right.T + bias)).sum()
    loss.backward()
    found = {"left": left.grad, "right": right.grad, "scale": scale.grad, "bias": bias.grad}
    return {"loss": loss.detach(), **found}  # type: ignore[dict-item]


@pytest.mark.parametrize("split", SPLITS)
def test_the_ring_equals_the_full_matrix_in_value_and_gradient(split):
    expected = full_matrix(sum(split))
    results = run_ranks(over_the_ring, len(split), split)
    for side in ("left", "right"):
        joined = torch.cat([result[side] for result in results])
        torch.testing.assert_close(joined, expected[side], rtol=1e-11, atol=1e-14)
    for result in results:
        for name in ("loss", "scale", "bias"):
            torch.testing.assert_close(result[name], expected[name], rtol=1e-12, atol=0)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        self.numel = max([self.numel, *sizes])
        return made


def largest_tensors(split: list[int]) -> tuple[int, int]:
    """The largest tensor made, and the largest one kept for the backward pass."""
    left, right = (mine(rows, split) for rows in pairs(sum(split)))
    kept: list[int] = [0]

    def pack(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    with Largest() as largest:
        with saved_tensors_hooks(pack, lambda x: x):
            loss = sigmoid_contrast(left, dist.ring(right), *numbers())
        loss.backward()
    return largest.numel, max(kept)


def test_no_tensor_is_larger_than_one_ranks_rows_times_anothers_and_none_of_them_is_kept():
    split = [20, 30, 40, 10]
    for rank, (largest, kept) in enumerate(run_ranks(largest_tensors, 4, split)):
        assert largest == split[rank] * 40
        assert kept <= 40 * WIDTH
