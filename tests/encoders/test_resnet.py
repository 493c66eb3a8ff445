"""Residual networks: sizes, a reference written out, absent pictures, ranks, ZeRO-3, teachers."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_scale import dist
from ssl_scale.encoders.resnet import ResNet
from ssl_scale.optim.schedule import Constant
from ssl_scale.sharding import Unsharded
from ssl_scale.teachers.ema import EMATeacher
from ssl_scale.types import Mask, View
from tests.distributed import run_ranks
from tests.encoders.inputs import rows

# Millions of parameters with the classifier of 1000 classes, as usually told; the paper has none.
PUBLISHED = {"18": 11.69, "34": 21.80, "50": 25.56, "101": 44.55, "152": 60.19}
KINDS = ("basic", "bottleneck")
SPLITS: dict[str, list[list[int]]] = {
    "unequal": [[0, 1, 2, 3], [4]],
    "a rank whose pictures are all absent": [[0, 2, 3, 4], [1]],
    "a rank without samples": [[], [0, 1, 2, 3, 4]],
}


def make(kind: str = "basic", **options: Any) -> ResNet:
    """Three stages on pictures of 16 x 16 pixels: 4 x 4 cells."""
    torch.manual_seed(1)
    defaults: dict[str, Any] = {
        "blocks": (1, 2, 1),
        "stem_width": 4,
        "channels": 2,
        "stem": "cifar",
    }
    return ResNet(kind=kind, **{**defaults, **options}).double()


def some(batch: int = 5, crops: int = 2) -> View:
    """Sample 1 is absent, and a crop of sample 3; what they hold is NaN."""
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(batch, crops, 2, 16, 16, generator=generator, dtype=torch.float64) + 3
    valid = torch.ones(batch, crops, 1, dtype=torch.bool)
    valid[1] = False
    valid[3, 0] = False
    values = torch.where(valid[..., None, None], values, torch.nan)
    return View(values, valid, torch.arange(batch))


def whole() -> View:
    view = some()
    return View(view.values.nan_to_num(1.5), torch.ones_like(view.valid), view.seeds)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_have_the_published_number_of_parameters(preset: str) -> None:
    with torch.device("meta"):
        encoder = ResNet(preset=preset)
    classifier = 1000 * (encoder.width + 1)
    millions = (sum(p.numel() for p in encoder.parameters()) + classifier) / 1e6
    assert millions == pytest.approx(PUBLISHED[preset], abs=0.006)
    assert encoder.width == (512 if preset in ("18", "34") else 2048)


@pytest.mark.parametrize(("stem_width", "millions"), [(128, 94), (256, 375)])
def test_wide_networks_have_the_published_number_of_parameters(stem_width, millions) -> None:
    # SimCLR, arXiv 2002.05709, table 6: ResNet-50 (2x) and (4x).
    with torch.device("meta"):
        encoder = ResNet(preset="50", stem_width=stem_width)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def norm_by_hand(x: Tensor, norm: nn.Module) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    factors, shifts = (p[None, :, None, None] for p in (norm.weight, norm.bias))
    return (x - mean) / (variance + 1e-5).sqrt() * factors + shifts


def by_hand(encoder: ResNet, images: Tensor, stem: str) -> Tensor:
    """The paper's figure 5 and table 1; a bottleneck's stride is in its middle convolution."""
    convolved = F.conv2d(
        images,
        encoder.stem.convolution.weight,
        stride=2 if stem == "imagenet" else 1,
        padding=3 if stem == "imagenet" else 1,
    )
    x = norm_by_hand(convolved, encoder.stem.norm).relu()
    if stem == "imagenet":
        x = F.max_pool2d(x, 3, 2, 1)
    for number, stage in enumerate(encoder.stages):
        for place, block in enumerate(stage.blocks):
            stride = 2 if number and not place else 1
            weights = [convolution.weight for convolution in block.convolutions]
            strides = [stride, 1] if len(weights) == 2 else [1, stride, 1]
            out = x
            for step, weight in enumerate(weights):
                out = F.conv2d(out, weight, stride=strides[step], padding=weight.shape[-1] // 2)
                out = norm_by_hand(out, block.norms[step])
                out = out if step == len(weights) - 1 else out.relu()
            if block.shortcut is not None:
                x = norm_by_hand(
                    F.conv2d(x, block.shortcut.weight, stride=stride), block.shortcut_norm
                )
            x = (x + out).relu()
    return x


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_papers_network(kind: str, stem: str) -> None:
    encoder, view = make(kind, stem=stem), whole()
    features = encoder(view, keep=("layer.2", "stem"))
    expected = by_hand(encoder, view.values.flatten(0, 1), stem)
    tokens = expected.flatten(2).transpose(1, 2).view_as(features.tokens)
    torch.testing.assert_close(features.tokens, tokens, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(features.pooled, tokens.mean(2), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(features.kept["layer.2"], features.tokens)
    assert features.prefix.shape == (5, 2, 0, encoder.width)
    assert encoder.layout(view).grid == ((1, 1) if stem == "imagenet" else (4, 4))
    assert features.kept["stem"].shape == (5, 2, 16 if stem == "imagenet" else 256, 4)


@pytest.mark.parametrize("size", [(16, 16), (17, 9), (33, 30)])
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_the_layout_is_what_comes_out(stem: str, size: tuple[int, int]) -> None:
    view = View(torch.randn(2, 1, 2, *size).double(), whole().valid[:2, :1], torch.arange(2))
    encoder = make(stem=stem)
    features, layout = encoder(view), encoder.layout(view)
    assert features.tokens.shape[2] == layout.grid[0] * layout.grid[1]
    assert torch.equal(features.valid, layout.valid)
    hidden = torch.ones_like(layout.valid)
    blank = view.but(values=torch.zeros_like(view.values))
    torch.testing.assert_close(encoder(view, Mask(hidden, "input")).tokens, encoder(blank).tokens)


def test_a_branch_may_start_as_zero() -> None:
    encoder = make("bottleneck", zero_init=True)
    for stage in encoder.stages:
        for block in stage.blocks:
            assert not block.norms[-1].weight.any()
            assert block.norms[0].weight.eq(1).all()
    assert all(block.norms[-1].weight.eq(1).all() for block in make("bottleneck").stages[0].blocks)


def step(encoder: ResNet, view: View) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Features, summed gradients of a loss that weighs all of them differently, statistics."""
    features = encoder(view)
    weights = torch.linspace(-1, 2, features.tokens.shape[1:].numel(), dtype=torch.float64)
    factors = 1 + view.seeds[:, None] / 7
    ((features.tokens.flatten(1) * weights) * factors).sum().backward()
    gradients = {name: dist.reduce(p.grad) for name, p in encoder.named_parameters()}
    return features.tokens.detach(), gradients, dict(encoder.named_buffers())


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.abs().max()) + 1e-6
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-10 * scale, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_absent_pictures_touch_nothing(kind: str) -> None:
    view = some()
    present = view.present
    # The pictures that are there, alone: one crop each.
    alone = View(view.values[present][:, None], view.valid[present][:, None], torch.arange(7))
    encoder, other = make(kind), make(kind)
    features, expected = encoder(view), other(alone)
    torch.testing.assert_close(features.tokens[present], expected.tokens[:, 0])
    assert not features.tokens[~present].any()
    weights = torch.randn_like(expected.tokens)
    (features.tokens[present] * weights[:, 0]).sum().backward()
    (expected.tokens * weights).sum().backward()
    close(
        {name: p.grad for name, p in encoder.named_parameters()},
        {name: p.grad for name, p in other.named_parameters()},
    )
    close(dict(encoder.named_buffers()), dict(other.named_buffers()))


def test_without_any_picture_nothing_moves() -> None:
    encoder, view = make(), some()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    features = encoder(view.but(valid=torch.zeros_like(view.valid)))
    assert not features.pooled.any()
    features.tokens.sum().backward()
    assert all(not p.grad.any() for p in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def step_on_this_rank(kind: str, split: list[list[int]]) -> Any:
    return step(make(kind), rows(some(), split[dist.rank()]))


@pytest.mark.dist
@pytest.mark.parametrize("split", SPLITS)
def test_ranks_equal_one_process(split: str) -> None:
    joined = [row for part in SPLITS[split] for row in part]
    for kind in KINDS:
        tokens, gradients, buffers = step(make(kind), rows(some(), joined))
        results = run_ranks(step_on_this_rank, 2, kind, SPLITS[split])
        torch.testing.assert_close(torch.cat([found[0] for found in results]), tokens)
        for found in results:
            close(found[1], gradients)
            close(found[2], buffers)


class Training(nn.Module):
    """This rank's share of a loss over the global batch."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = make("bottleneck").float()

    def forward(self, view: View) -> Tensor:
        pooled = self.encoder(view.but(values=view.values.float())).pooled
        target = torch.linspace(-1, 1, pooled.shape[-1])
        losses = torch.where(view.present, (pooled - target).square().mean(-1), 0)
        return losses.sum() * dist.world_size() / dist.reduce(view.present.sum())


CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_force_ds_cpu_optimizer": False,
    "zero_allow_untested_optimizer": True,
    "gradient_clipping": 0.0,
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
}


def losses_under_zero3(split: Sequence[Sequence[int]]) -> list[float]:
    import deepspeed

    deepspeed.init_distributed("gloo", dist_init_required=False)
    with deepspeed.zero.Init(config_dict_or_path=CONFIG):
        model = Training()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=CONFIG, dist_init_required=False
    )
    losses = []
    for _ in range(4):
        loss = engine(rows(some(), split[dist.rank()]))
        engine.backward(loss)
        engine.step()
        losses.append(float(dist.reduce(loss.detach())) / dist.world_size())
    return losses


@pytest.mark.dist
@pytest.mark.slow
def test_it_trains_alike_under_zero3() -> None:
    model = Training()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    alone = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = model(some())
        loss.backward()
        optimizer.step()
        alone.append(float(loss.detach()))
    assert alone[-1] < alone[0]
    split = SPLITS["a rank whose pictures are all absent"]
    for losses in run_ranks(losses_under_zero3, 2, split, preload=("deepspeed",)):
        assert losses == pytest.approx(alone, rel=2e-5)


def test_a_teacher_takes_its_statistics_over() -> None:
    system = nn.Module()
    system.encoders = nn.ModuleDict({"image": make()})
    teacher = EMATeacher(Constant(0.5))
    teacher.adopt({"encoders.image": make})
    teacher.copy_student(system)
    system.encoders["image"](whole())
    teacher.update(system, Unsharded(), 0.0)
    taught, student = (root.get_submodule("encoders.image") for root in (teacher, system))
    for name, buffer in student.named_buffers():
        assert torch.equal(dict(taught.named_buffers())[name], buffer), name
        assert not buffer.eq(0).all() and not buffer.eq(1).all()
    student.eval()
    torch.testing.assert_close(taught(whole()).pooled, student(whole()).pooled)


def test_in_evaluation_pictures_do_not_see_each_other() -> None:
    encoder, view = make(), whole()
    encoder(view)
    encoder.eval()
    features = encoder(view)
    torch.testing.assert_close(encoder(rows(view, [4, 2])).tokens, features.tokens[[4, 2]])


def test_questions_for_transformers_are_refused() -> None:
    encoder, view = make(), whole()
    hidden = torch.zeros(5, 2, 16, dtype=torch.bool)
    with pytest.raises(ValueError, match="must be 'input', but is 'drop'"):
        encoder(view, Mask(hidden, "drop"))
    with pytest.raises(ValueError, match="must be 'full' for a ResNet, but is 'causal'"):
        encoder(view, None, "causal")
    with pytest.raises(ValueError, match=r"among \['stem', 'layer.0', .*\], but are \['layer.9'\]"):
        encoder(view, keep=("layer.9",))
    with pytest.raises(ValueError, match=r"2 channels, height, width\], but are \[5, 2, 1, 16, 16"):
        encoder(view.but(values=view.values[:, :, :1]))
    with pytest.raises(ValueError, match="kind and blocks must be given"):
        ResNet()


def test_bf16_keeps_full_precision_statistics() -> None:
    encoder, view = make().bfloat16(), whole()
    view = view.but(values=view.values.bfloat16())
    features = encoder(view)
    assert features.tokens.dtype == torch.bfloat16
    assert {buffer.dtype for buffer in encoder.buffers()} == {torch.float32}
    other = make().bfloat16()
    half = view.but(valid=some().valid)
    other(half).tokens.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in other.parameters())
