"""Every attention path against softmax attention written out for one sequence and one head."""

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from ssl_scale.nn import attend as core
from ssl_scale.nn.attend import attend, grouped
from ssl_scale.nn.packing import Packing

HEADS, HEAD_WIDTH = 3, 8
LENGTHS = {
    "one length": (5, 5, 5),
    "one length and absent": (5, 0, 5),
    "all different": (7, 1, 4, 12),
    "absent first and last": (0, 3, 9, 0),
    "beyond the short path": (60, 3, 50, 49),
    "one length beyond the short path": (50, 50),
    "single tokens": (1, 1),
    "all absent": (0, 0),
}


def naive(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], how: str) -> Tensor:
    out, start = torch.zeros_like(value), 0
    for length in lengths:
        for head in range(query.shape[1]):
            for i in range(start, start + length):
                seen = {
                    "full": range(start, start + length),
                    "causal": range(start, i + 1),
                    "diagonal": range(i, i + 1),
                }[how]
                scores = torch.stack(
                    [query[i, head] @ key[j, head] / query.shape[-1] ** 0.5 for j in seen]
                )
                weights = scores.exp() / scores.exp().sum()
                row = sum(w * value[j, head] for w, j in zip(weights, seen, strict=True))
                mask = torch.zeros_like(out)
                mask[i, head] = 1
                out = out + mask * row
        start += length
    return out


def packing_of(lengths: tuple[int, ...], device: str = "cpu") -> Packing:
    valid = (
        torch.arange(max(lengths) + 1, device=device)
        < torch.tensor(lengths, device=device)[:, None]
    )
    return Packing.of(valid)


def qkv(total: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> list[Tensor]:
    return [
        torch.randn(total, HEADS, HEAD_WIDTH, dtype=dtype).to(device).requires_grad_()
        for _ in range(3)
    ]


def dense_reference(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], how: str) -> Tensor:
    """The same as `naive`, by one masked matrix; held to it below."""
    ids = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).to(q.device)
    allowed = ids[:, None] == ids
    if how == "causal":
        allowed = allowed.tril()
    if how == "diagonal":
        allowed = torch.eye(len(ids), dtype=torch.bool, device=q.device)
    scores = torch.einsum("ihd,jhd->hij", q, k) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    return torch.einsum("hij,jhd->ihd", weights, v)


def values_and_gradients(out: Tensor, inputs: list[Tensor], weight: Tensor) -> list[Tensor]:
    gradients = torch.autograd.grad((out * weight).sum(), inputs, allow_unused=True)
    zeros = [torch.zeros_like(x) for x in inputs]
    return [out, *(z if g is None else g for g, z in zip(gradients, zeros, strict=True))]


@pytest.mark.parametrize("how", ["full", "causal", "diagonal"])
def test_the_matrix_reference_is_the_written_out_formula(how: str) -> None:
    lengths = (3, 0, 1, 4)
    inputs = qkv(sum(lengths))
    torch.testing.assert_close(
        dense_reference(*inputs, lengths, how), naive(*inputs, lengths, how), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("how", ["full", "causal", "diagonal"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_values_and_gradients_equal_the_reference(
    lengths: tuple[int, ...], dtype: torch.dtype, how: str
) -> None:
    inputs = qkv(sum(lengths), dtype)
    weight = torch.randn(sum(lengths), HEADS, HEAD_WIDTH, dtype=dtype)
    out = attend(*inputs, packing_of(lengths), how)
    expected = dense_reference(*inputs, lengths, how)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    for got, wanted in zip(
        values_and_gradients(out, inputs, weight),
        values_and_gradients(expected, inputs, weight),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("causal", [False, True])
def test_groups_equal_one_reshape_where_lengths_are_equal(causal: bool) -> None:
    packing = Packing.full(4, 6, torch.device("cpu"))
    inputs = qkv(24)
    weight = torch.randn_like(inputs[0])
    by_group = values_and_gradients(grouped(*inputs, packing, causal), inputs, weight)
    at_once = values_and_gradients(
        attend(*inputs, packing, "causal" if causal else "full"), inputs, weight
    )
    for got, wanted in zip(by_group, at_once, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_half_precision_stays_near_double() -> None:
    lengths = (9, 2, 14)
    inputs = qkv(sum(lengths))
    out = attend(*(x.to(torch.bfloat16) for x in inputs), packing_of(lengths))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(
        out.double(), dense_reference(*inputs, lengths, "full"), rtol=0.05, atol=0.05
    )


def test_building_models_does_not_import_the_compiler() -> None:
    program = "import sys, ssl_scale.encoders.vision; print('torch._dynamo' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_missing_kernel_is_passed_over() -> None:
    missing = (("no_such_package", "kernel"), ("math", "no_such_name"))
    assert core.find_kernel(missing) is None
    assert core.find_kernel((*missing, ("math", "sin"))) is math.sin


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kernel", core.KERNELS, ids=lambda kernel: kernel[1])
@pytest.mark.parametrize("how", ["full", "causal"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_gpu_kernels_equal_the_reference(
    lengths: tuple[int, ...], how: str, kernel: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if core.find_kernel((kernel,)) is None:
        pytest.skip(f"{kernel} is not installed")
    monkeypatch.setattr(core, "KERNELS", (kernel,))
    inputs = qkv(sum(lengths), torch.bfloat16, "cuda")
    weight = torch.randn_like(inputs[0])
    out = attend(*inputs, packing_of(lengths, "cuda"), how)
    wide = [x.detach().double().requires_grad_() for x in inputs]
    expected = dense_reference(*wide, lengths, how)
    for got, wanted in zip(
        values_and_gradients(out, inputs, weight),
        values_and_gradients(expected, wide, weight.double()),
        strict=True,
    ):
        torch.testing.assert_close(got.double(), wanted, rtol=0.03, atol=0.03)
