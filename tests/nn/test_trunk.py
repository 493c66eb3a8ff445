"""The trunk against its blocks written out, and what its options promise."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_scale.nn.blocks import Block
from ssl_scale.nn.drop_path import survival
from ssl_scale.nn.packing import Packing
from ssl_scale.nn.position import rotary_angles, rotation
from ssl_scale.nn.trunk import Trunk
from ssl_scale.rng import Draw

WIDTH, HEADS = 24, 3
CPU = torch.device("cpu")


def make(depth: int = 2, **options: Any) -> Trunk:
    """A small trunk in double precision whose norms and factors are not at their simple start."""
    torch.manual_seed(1)
    trunk = Trunk(WIDTH, depth, HEADS, **options).double()
    with torch.no_grad():
        for parameter in trunk.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return trunk


def written_out(trunk: Trunk, x: Tensor) -> Tensor:
    """One sequence ``[tokens, width]`` through the papers' equations."""
    for block in trunk.blocks:
        assert isinstance(block, Block)

        def attention(x: Tensor, block: Block = block) -> Tensor:
            inner = block.attention
            heads = []
            for head in range(HEADS):
                size = WIDTH // HEADS
                rows = slice(head * size, (head + 1) * size)
                q, k, v = (
                    x @ inner.qkv.weight[i * WIDTH : (i + 1) * WIDTH][rows].T
                    + inner.qkv.bias[i * WIDTH : (i + 1) * WIDTH][rows]
                    for i in range(3)
                )
                if inner.query_norm is not None and inner.key_norm is not None:
                    q, k = inner.query_norm(q), inner.key_norm(k)
                heads.append((q @ k.T / size**0.5).softmax(-1) @ v)
            out = torch.cat(heads, -1) @ inner.out.weight.T + inner.out.bias
            return out if block.scale_1 is None else out * block.scale_1.factors

        def feed_forward(x: Tensor, block: Block = block) -> Tensor:
            inner: Any = block.feed_forward
            if hasattr(inner, "gate_up"):
                both = x @ inner.gate_up.weight.T + inner.gate_up.bias
                gate, up = both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]
                hidden = gate * torch.sigmoid(gate) * up
            else:
                hidden = F.gelu(x @ inner.up.weight.T + inner.up.bias)
            out = hidden @ inner.down.weight.T + inner.down.bias
            return out if block.scale_2 is None else out * block.scale_2.factors

        if trunk.norm_before is None:
            x = x + attention(block.norm_1(x))
            x = x + feed_forward(block.norm_2(x))
        else:
            x = block.norm_1(x + attention(x))
            x = block.norm_2(x + feed_forward(x))
    return x if trunk.norm_after is None else trunk.norm_after(x)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm_first": False},
        {"mlp": "swiglu", "qk_norm": True, "layer_scale": 0.1, "norm": "rms"},
    ],
    ids=["pre-norm", "post-norm", "everything else"],
)
def test_a_trunk_is_its_equations(options: dict[str, Any]) -> None:
    trunk = make(**options)
    x = torch.randn(7, WIDTH, dtype=torch.float64)
    out, _ = trunk(x, packing=Packing.full(1, 7, CPU))
    start = x if trunk.norm_before is None else trunk.norm_before(x)
    torch.testing.assert_close(out, written_out(trunk, start), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("attend", ["full", "causal", "diagonal"])
def test_sequences_do_not_see_each_other(attend: str) -> None:
    trunk = make()
    lengths = [5, 1, 9, 0, 5]
    sequences = [torch.randn(n, WIDTH, dtype=torch.float64) for n in lengths]
    packing = Packing.of(torch.arange(9) < torch.tensor(lengths)[:, None])
    together, _ = trunk(torch.cat(sequences), packing=packing, attend=attend)
    for got, sequence in zip(together.split(lengths), sequences, strict=True):
        alone, _ = trunk(sequence, packing=Packing.full(1, len(sequence), CPU), attend=attend)
        torch.testing.assert_close(got, alone, rtol=1e-11, atol=1e-11)


def test_causal_tokens_do_not_depend_on_later_ones() -> None:
    trunk = make()
    x = torch.randn(2 * 6, WIDTH, dtype=torch.float64)
    changed = x.clone().view(2, 6, WIDTH)
    changed[:, 4:] += torch.randn(2, 2, WIDTH, dtype=torch.float64)
    packing = Packing.full(2, 6, CPU)
    before, _ = trunk(x, packing=packing, attend="causal")
    after, _ = trunk(changed.view(12, WIDTH), packing=packing, attend="causal")
    moved = (before - after).view(2, 6, WIDTH).abs().amax(-1)
    assert moved[:, :4].max() < 1e-12
    assert moved[:, 4:].min() > 1e-3


def gradients(trunk: Trunk, out: Tensor, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(out.square().sum(), [x, *trunk.parameters()]))


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}, {"drop_path": 0.5}], ids=str)
def test_recomputing_changes_neither_values_nor_gradients(options: dict[str, Any]) -> None:
    plain, sparing = make(**options), make(**options, recompute=True)
    packing = Packing.of(torch.arange(6) < torch.tensor([6, 3])[:, None])
    x = torch.randn(9, WIDTH, dtype=torch.float64, requires_grad=True)
    draw = Draw(torch.arange(2))
    answers = []
    for trunk in (plain, sparing):
        torch.manual_seed(7)
        out, _ = trunk(x, packing=packing, draw=draw)
        answers.append([out, *gradients(trunk, out, x)])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_recomputing_keeps_less_for_the_backward() -> None:
    saved = {}
    for recompute in (False, True):
        trunk = make(recompute=recompute)
        x = torch.randn(12, WIDTH, dtype=torch.float64, requires_grad=True)
        sizes: list[int] = []

        def keep(t: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(t.numel())
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            trunk(x, packing=Packing.full(2, 6, CPU))
        saved[recompute] = sum(sizes)
    assert saved[True] < saved[False] / 5


def test_drop_path_belongs_to_the_sequence_not_to_its_batch() -> None:
    trunk = make(depth=4, drop_path=0.6)
    x = torch.randn(5, 6, WIDTH, dtype=torch.float64)
    seeds = torch.tensor([11, 12, 13, 14, 15])

    def run(chosen: list[int]) -> Tensor:
        packing = Packing.full(len(chosen), 6, CPU)
        out, _ = trunk(packing.pack(x[chosen]), packing=packing, draw=Draw(seeds[chosen]))
        return packing.unpack(out)

    whole = run([0, 1, 2, 3, 4])
    torch.testing.assert_close(run([3, 1]), whole[[3, 1]], rtol=1e-11, atol=1e-11)
    moved = whole - trunk.eval()(x.view(-1, WIDTH), packing=Packing.full(5, 6, CPU))[0].view_as(x)
    assert moved.abs().amax((1, 2)).max() > 0.01


def test_drop_path_rises_linearly_and_keeps_the_expectation() -> None:
    factors = survival(Draw(torch.arange(20000)), 0.4, 3)
    torch.testing.assert_close(factors.mean(0), torch.ones(6), atol=0.03, rtol=0)
    dropped = (factors == 0).float().mean(0)
    expected = torch.tensor([0.0, 0.0, 0.2, 0.2, 0.4, 0.4])
    torch.testing.assert_close(dropped, expected, atol=0.02, rtol=0)
    torch.testing.assert_close(factors.amax(0), 1 / (1 - expected))


def test_drop_path_needs_randomness_in_training_only() -> None:
    trunk = make(drop_path=0.1)
    x, packing = torch.randn(4, WIDTH, dtype=torch.float64), Packing.full(1, 4, CPU)
    with pytest.raises(ValueError, match="draw must be given"):
        trunk(x, packing=packing)
    trunk.eval()(x, packing=packing)
    with pytest.raises(ValueError, match=r"drop_path must be in \[0, 1\), but is 1"):
        make(drop_path=1.0)


def test_kept_intermediates_are_what_shorter_trunks_give() -> None:
    trunk = make(depth=3)
    x, packing = torch.randn(8, WIDTH, dtype=torch.float64), Packing.full(2, 4, CPU)
    out, kept = trunk(x, packing=packing, keep=("stem", "layer.1", "layer.2"))
    assert sorted(kept) == ["layer.1", "layer.2", "stem"]
    torch.testing.assert_close(kept["stem"], x)
    torch.testing.assert_close(trunk.norm_after(kept["layer.2"]), out)
    trunk.blocks = trunk.blocks[:2]
    torch.testing.assert_close(trunk(x, packing=packing)[0], trunk.norm_after(kept["layer.1"]))
    with pytest.raises(
        ValueError, match=r"\['stem', 'layer.0', 'layer.1'\], but are \['layer.2'\]"
    ):
        trunk(x, packing=packing, keep=("layer.2",))


def test_no_tokens_at_all_pass_with_zero_gradients() -> None:
    trunk = make(qk_norm=True, layer_scale=0.1)
    packing = Packing.of(torch.zeros(3, 4, dtype=torch.bool))
    x = torch.zeros(0, WIDTH, dtype=torch.float64)
    out, _ = trunk(x, packing=packing)
    assert out.shape == (0, WIDTH)
    (out.sum() + 0.0).backward()
    for parameter in trunk.parameters():
        assert parameter.grad is None or not parameter.grad.any()


def test_rotary_positions_break_the_symmetry_of_places() -> None:
    trunk = make()
    x = torch.randn(WIDTH, dtype=torch.float64) + torch.zeros(5, 1, dtype=torch.float64)
    # One token differs; seen without positions it is equally near to the first and the last.
    x[1] += torch.randn(WIDTH, dtype=torch.float64)
    packing = Packing.full(1, 5, CPU)
    blind, _ = trunk(x, packing=packing)
    torch.testing.assert_close(blind[0], blind[4])
    turned, _ = trunk(
        x, packing=packing, rotation=rotation(rotary_angles((5,), WIDTH // HEADS), packing.place)
    )
    assert (turned[0] - turned[4]).abs().max() > 1e-3


def test_a_bf16_trunk_stays_near_the_fp32_one() -> None:
    wide = make(depth=3).float()
    x = torch.randn(20, WIDTH)
    packing = Packing.full(4, 5, CPU)
    expected, _ = wide(x, packing=packing)
    narrow, _ = make(depth=3).to(torch.bfloat16)(x.to(torch.bfloat16), packing=packing)
    assert narrow.dtype == torch.bfloat16
    assert (narrow.float() - expected).abs().max() < 0.1
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = wide(x, packing=packing)
    assert (mixed.float() - expected).abs().max() < 0.1


@pytest.mark.parametrize(
    "options", [{"init_std": None}, {"init_std": 0.02, "mlp": "swiglu"}], ids=str
)
def test_initial_values_follow_the_seed(options: dict[str, Any]) -> None:
    trunks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        trunks.append(Trunk(WIDTH, 2, HEADS, **options))
    same, other = (
        [torch.equal(a, b) for a, b in zip(trunks[0].parameters(), t.parameters(), strict=True)]
        for t in trunks[1:]
    )
    assert all(same)
    matrices = [p.dim() > 1 for p in trunks[0].parameters()]
    assert [not equal for equal in other] == matrices


def test_every_module_with_parameters_takes_and_returns_tensors() -> None:
    trunk = make(qk_norm=True, layer_scale=0.1, mlp="swiglu")
    owners = {
        type(module).__name__
        for module in trunk.modules()
        if list(module.parameters(recurse=False))
    }
    assert owners == {"Linear", "LayerNorm", "LayerScale"}
    assert not list(itertools.chain(*(m.buffers(recurse=False) for m in trunk.modules())))
    assert isinstance(trunk.blocks, nn.ModuleList)
