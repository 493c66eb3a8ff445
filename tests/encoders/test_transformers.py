"""What every transformer encoder promises, whatever its modality."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_scale.types import Features, Mask, View
from tests.encoders.inputs import KINDS, pictures, rows, text, texts, vision

POSITIONS = ["learned", "sincos", "rotary"]
POOLS = ["cls", "mean", "first", "last"]
kinds = pytest.mark.parametrize("kind", KINDS)


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def same(one: Features, other: Features) -> None:
    close(one.pooled, other.pooled)
    close(one.prefix, other.prefix)
    close(one.tokens, other.tokens)


@kinds
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("attend", ["full", "causal"])
def test_features_do_not_depend_on_batch_mates_or_their_order(
    kind: str, position: str, attend: str
) -> None:
    make, view_of = KINDS[kind]
    encoder, view = make(position=position, registers=2, drop_path=0.5, depth=3), view_of()
    whole = encoder(view, None, attend)
    for chosen in ([2, 0], [1]):
        some = encoder(rows(view, chosen), None, attend)
        close(some.pooled, whole.pooled[chosen])
        close(some.tokens, whole.tokens[chosen])


@kinds
@pytest.mark.parametrize("pool", POOLS)
def test_features_do_not_depend_on_other_crops(kind: str, pool: str) -> None:
    make, view_of = KINDS[kind]
    encoder, view = make(pool=pool, drop_path=0.5), view_of()
    first = View(view.values[:, :1], view.valid[:, :1], view.seeds)
    close(encoder(first).pooled, encoder(view).pooled[:, :1])


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("pool", POOLS)
def test_padding_does_not_matter(position: str, pool: str) -> None:
    encoder, view = text(position=position, pool=pool, max_tokens=30, drop_path=0.5), texts()
    more = torch.full((3, 2, 6), -1)
    longer = View(
        torch.cat([view.values, more], -1), torch.cat([view.valid, more >= 0], -1), view.seeds
    )
    short, long = encoder(view), encoder(longer)
    close(long.pooled, short.pooled)
    close(long.tokens[:, :, :12], short.tokens)
    assert not long.tokens[:, :, 12:].any()


@kinds
def test_shapes_and_origin(kind: str) -> None:
    make, view_of = KINDS[kind]
    encoder, view = make(registers=2), view_of()
    layout, features = encoder.layout(view), encoder(view, keep=("stem", "layer.1"))
    tokens = layout.valid.shape[-1]
    assert features.tokens.shape == (3, 2, tokens, 24)
    assert features.prefix.shape == (3, 2, 3, 24)
    assert features.pooled.shape == (3, 2, 24)
    assert torch.equal(features.valid, layout.valid)
    assert torch.equal(features.origin, torch.arange(tokens).expand(3, 2, -1))
    assert {name: value.shape for name, value in features.kept.items()} == {
        "stem": features.tokens.shape,
        "layer.1": features.tokens.shape,
    }
    close(
        encoder.trunk.norm_after(features.kept["layer.1"])[features.valid],
        features.tokens[features.valid],
    )


@kinds
def test_pools(kind: str) -> None:
    make, view_of = KINDS[kind]
    view = view_of()
    features = make(pool="cls")(view)
    close(features.pooled, features.prefix[:, :, 0])
    features = make(pool="mean")(view)
    for i, j in ((0, 0), (2, 1)):
        close(features.pooled[i, j], features.tokens[i, j][features.valid[i, j]].mean(0))
    features = make(pool="last")(view)
    for i, j in ((0, 0), (2, 1)):
        close(features.pooled[i, j], features.tokens[i, j][features.valid[i, j]][-1])
    features = make(pool="first")(view)
    for i, j in ((0, 0), (2, 1)):
        close(features.pooled[i, j], features.tokens[i, j][features.valid[i, j]][0])
    assert features.prefix.shape[2] == 0


@kinds
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("pool", POOLS)
def test_dropping_is_running_the_trunk_on_the_visible_tokens(
    kind: str, position: str, pool: str
) -> None:
    make, view_of = KINDS[kind]
    encoder, view = make(position=position, pool=pool), view_of()
    valid = encoder.layout(view).valid
    hidden = torch.rand(valid.shape) < 0.5
    features = encoder(view, Mask(hidden, "drop"))
    visible = valid & ~hidden
    assert torch.equal(features.valid.sum(-1), visible.sum(-1))
    stem = encoder(view, keep=("stem",)).kept["stem"]
    for i in range(3):
        for j in range(2):
            places = visible[i, j].nonzero()[:, 0]
            num = len(places)
            assert features.origin[i, j, :num].tolist() == places.tolist()
            # One sequence alone, cut out of what would enter the trunk.
            alone = trunk_alone(encoder, stem[i, j, places], places, valid.shape[-1])
            close(features.tokens[i, j, :num], alone[encoder.num_prefix :])
            assert not features.tokens[i, j, num:].any()
            if pool == "cls" and num:
                close(features.pooled[i, j], alone[0])


def trunk_alone(encoder: Any, tokens: Tensor, places: Tensor, grid_tokens: int) -> Tensor:
    from ssl_scale.nn.packing import Packing
    from ssl_scale.nn.position import rotary_angles, rotation

    num_prefix = encoder.num_prefix if len(places) else 0
    before = encoder.prefix.tokens[:num_prefix] if num_prefix else tokens[:0]
    sequence = torch.cat([before, tokens])
    turn = None
    if encoder.is_rotary:
        grid = (4, 4) if grid_tokens == 16 else (grid_tokens,)
        places = torch.cat([torch.full((num_prefix,), -1), places])
        turn = rotation(rotary_angles(grid, 8), places)
    packing = Packing.full(1, len(sequence), sequence.device)
    out: Tensor = encoder.trunk(sequence, packing=packing, rotation=turn)[0]
    return torch.cat([out.new_zeros(encoder.num_prefix - num_prefix, 24), out])


@kinds
@pytest.mark.parametrize("mode", [None, "drop", "replace"])
@pytest.mark.parametrize("pool", POOLS)
def test_absent_samples_change_nothing_and_get_no_gradient(kind: str, pool: str, mode: Any) -> None:
    make, view_of = KINDS[kind]
    options = {"mask_token": True} if kind == "vision" else {}
    encoder, view = make(pool=pool, registers=1, **options), view_of()
    valid = view.valid.clone()
    valid[1] = False
    valid[2, 0] = False
    values = view.values.clone()
    if kind == "vision":
        values[~valid[..., 0]] = torch.nan
    gone = View(values, valid, view.seeds)
    hidden = torch.rand(encoder.layout(view).valid.shape) < 0.4
    mask = None if mode is None else Mask(hidden, mode)
    features = encoder(gone, mask, keep=("layer.0",))
    whole = encoder(view, mask, keep=("layer.0",))
    for got, wanted in ((features.pooled, whole.pooled), (features.prefix, whole.prefix)):
        assert not got[1].any()
        assert not got[2, 0].any()
        close(got[0], wanted[0])
        close(got[2, 1], wanted[2, 1])
    assert not features.tokens[1].any()
    assert not features.kept["layer.0"][1].any()
    assert not features.valid[1].any()

    def gradients(f: Features, *present: Any) -> list[Tensor]:
        total = sum((f.pooled[p].square().sum() + f.tokens[p].square().sum()) for p in present)
        found = torch.autograd.grad(total, list(encoder.parameters()), allow_unused=True)
        zeros = [torch.zeros_like(p) for p in encoder.parameters()]
        return [z if g is None else g for g, z in zip(found, zeros, strict=True)]

    everything = gradients(features, slice(None))
    for got, wanted in zip(everything, gradients(whole, 0, (2, 1)), strict=True):
        close(got, wanted)


@kinds
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("mode", [None, "drop"])
def test_a_batch_without_the_modality_is_zero_with_zero_gradients(
    kind: str, pool: str, mode: Any
) -> None:
    make, view_of = KINDS[kind]
    encoder, view = make(pool=pool), view_of()
    gone = view.but(valid=torch.zeros_like(view.valid))
    hidden = torch.zeros_like(encoder.layout(gone).valid)
    features = encoder(gone, None if mode is None else Mask(hidden, mode))
    assert features.pooled.shape == (3, 2, 24)
    assert not features.pooled.any()
    (features.pooled.sum() + features.tokens.sum()).backward()
    for parameter in encoder.parameters():
        assert parameter.grad is None or not parameter.grad.any()


@kinds
def test_the_same_seed_builds_the_same_encoder(kind: str) -> None:
    make, _ = KINDS[kind]
    for one, other in zip(make().parameters(), make().parameters(), strict=True):
        assert torch.equal(one, other)


@kinds
def test_state_dict_round_trip(kind: str) -> None:
    make, view_of = KINDS[kind]
    encoder, view = make(registers=1), view_of()
    other = make(registers=1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(encoder.state_dict())
    same(other(view), encoder(view))


@kinds
@pytest.mark.parametrize(
    "options", [{}, {"norm_first": False}, {"mlp": "swiglu", "qk_norm": True}], ids=str
)
def test_every_parameter_gets_a_gradient(kind: str, options: dict[str, Any]) -> None:
    make, view_of = KINDS[kind]
    encoder = make(**options)
    features = encoder(view_of())
    (features.pooled * torch.randn_like(features.pooled)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@kinds
def test_bf16_is_near_fp32_and_batches_of_one_work(kind: str) -> None:
    make, view_of = KINDS[kind]
    encoder, view = make().float(), rows(view_of(), [0])
    values = view.values.float() if kind == "vision" else view.values
    expected = encoder(view.but(values=values))
    narrow = values.bfloat16() if kind == "vision" else values
    got = encoder.bfloat16()(view.but(values=narrow))
    assert got.pooled.dtype == torch.bfloat16
    assert (got.pooled.float() - expected.pooled).abs().max() < 0.1


def test_both_kinds_are_covered() -> None:
    assert {type(vision()).__name__, type(text()).__name__} == {
        "VisionTransformer",
        "TextTransformer",
    }
    assert pictures().present.all()
