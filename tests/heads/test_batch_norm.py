import pytest
import torch
from torch import Tensor, nn

from ssl_scale import dist
from ssl_scale.heads.batch_norm import SyncedBatchNorm
from tests.distributed import run_ranks

ROWS, WIDTH = 9, 4


def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64) * 2 + 30
    return x, torch.arange(ROWS) % 4 != 1


def pass_through(norm: nn.Module, x: Tensor, *valid: Tensor) -> tuple[Tensor, Tensor]:
    """The output and the gradient of a loss that weighs each of its numbers differently."""
    x = x.clone().requires_grad_()
    out = norm(x, *valid)
    weights = torch.linspace(-1, 2, out.numel(), dtype=x.dtype).view_as(out)
    kept = valid[0] if valid else torch.ones(len(x), dtype=torch.bool)
    (torch.where(kept[:, None], out, 0) * weights).sum().backward()
    return out.detach(), x.grad


def test_one_process_without_absent_rows_is_torch_batch_norm():
    ours, theirs = SyncedBatchNorm(WIDTH).double(), nn.BatchNorm1d(WIDTH).double()
    for actual, wanted in zip(
        pass_through(ours, rows()[0]), pass_through(theirs, rows()[0]), strict=True
    ):
        torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_variance, theirs.running_var)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(rows()[0]), theirs(rows()[0]))


def test_absent_rows_touch_neither_the_others_nor_the_statistics():
    x, valid = rows()
    poisoned = x.masked_fill(~valid[:, None], 1e6)
    some, all_there = SyncedBatchNorm(WIDTH).double(), SyncedBatchNorm(WIDTH).double()
    out = some(poisoned, valid)
    torch.testing.assert_close(out[valid], all_there(x[valid]))
    torch.testing.assert_close(some.running_variance, all_there.running_variance)


def test_without_rows_nothing_moves_and_nothing_is_nan():
    norm = SyncedBatchNorm(WIDTH)
    out, gradient = pass_through(norm, torch.ones(3, WIDTH), torch.zeros(3, dtype=torch.bool))
    assert out.isfinite().all()
    assert not gradient.any()
    assert norm.running_mean.eq(0).all()
    assert norm.running_variance.eq(1).all()


def test_a_large_mean_does_not_drown_the_variance():
    x = torch.randn(64, WIDTH) + 5000
    out = SyncedBatchNorm(WIDTH)(x)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(WIDTH), rtol=0.01, atol=0)


def test_half_precision_keeps_full_precision_statistics():
    norm = SyncedBatchNorm(WIDTH)
    assert norm(torch.randn(8, WIDTH).bfloat16()).dtype == torch.bfloat16
    assert norm.running_mean.dtype == torch.float32


def norm_on_this_rank(splits: list[int]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    start = sum(splits[: dist.rank()])
    mine = slice(start, start + splits[dist.rank()])
    x, valid = rows()
    weights = torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view_as(x)
    x = x[mine].clone().requires_grad_()
    norm = SyncedBatchNorm(WIDTH).double()
    out = norm(x, valid[mine])
    (torch.where(valid[mine][:, None], out, 0) * weights[mine]).sum().backward()
    assert x.grad is not None
    return out.detach(), x.grad, dict(norm.named_buffers())


@pytest.mark.dist
@pytest.mark.parametrize("splits", [[6, 3], [9, 0], [1, 1, 4, 3]])
def test_ranks_equal_one_process(splits):
    norm = SyncedBatchNorm(WIDTH).double()
    out, gradient = pass_through(norm, *rows())
    results = run_ranks(norm_on_this_rank, len(splits), splits)
    close = {"rtol": 1e-11, "atol": 1e-12}
    torch.testing.assert_close(torch.cat([result[0] for result in results]), out, **close)
    torch.testing.assert_close(torch.cat([result[1] for result in results]), gradient, **close)
    for result in results:
        torch.testing.assert_close(result[2], dict(norm.named_buffers()), rtol=1e-13, atol=0)
