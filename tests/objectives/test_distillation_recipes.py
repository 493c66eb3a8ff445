"""Recipes of the distilling systems, from YAML to a few steps of a plain loop on small pictures."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_scale.encoders.vision import VisionTransformer
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.sharding import Unsharded
from ssl_scale.system.build import build_system
from ssl_scale.system.system import System
from ssl_scale.types import Batch

COMMON = """
data:
  global_batch: 16
  fields: {image: {type: ImageField, extension: png, size_px: 8}}
  sources: {pictures: {data: pictures, fields: [image], feeds: [FEEDS]}}
views:
  image: {type: ImageView, field: image}
  global: {type: AugmentedImage, field: image, size_px: 8, scale: [0.4, 1.0]}
  local: {type: AugmentedImage, field: image, size_px: 4, crops: 3, scale: [0.1, 0.4]}
encoders:
  image: {type: VisionTransformer, width: 16, depth: 3, num_heads: 2, patch: 2, size_px: 8, MORE}
teachers: {ema: {type: EMATeacher, momentum: 0.9}}
optim: {type: AdamW, lr: 0.003}
train: {steps: 10}
"""

HEAD = "{type: PrototypeHead, prototypes: 24, hidden: 16, bottleneck: 8}"

SYSTEMS = {
    "dinov2": (
        "dino, ibot, koleo",
        "mask_token: true",
        f"""
masks: {{blocks: {{type: BlockMask, view: global, encoder: image, min_block: 1, num_tries: 9}}}}
objectives:
  dino: {{type: DINO, encoder: image, view: global, local_view: local, mask: blocks, head: {HEAD},
    targets: {{type: SinkhornKnopp}}, frozen_until: 0.1,
    teacher_temperature: {{type: Linear, start: 0.04, end: 0.07, until: 0.3}}}}
  ibot: {{type: IBOT, encoder: image, mask: blocks, head: {HEAD}, targets: {{type: SinkhornKnopp}},
    teacher_temperature: 0.05}}
  koleo: {{type: KoLeo, encoder: image, view: global, mask: blocks, weight: 0.1}}
""",
    ),
    "dino": (
        "dino",
        "registers: 2",
        f"""
objectives:
  dino: {{type: DINO, encoder: image, view: global, local_view: local, head: {HEAD},
    targets: {{type: Centring, momentum: 0.9}}, teacher_temperature: 0.04}}
""",
    ),
    "swav": (
        "swav",
        "pool: mean",
        """
objectives:
  swav: {type: SwAV, encoder: image, view: global, local_view: local, head: {type: PrototypeHead,
    prototypes: 24, hidden: 16, bottleneck: 8, layers: 2, norm: batch, activation: relu}}
""",
    ),
    "data2vec": (
        "data2vec",
        "mask_token: true, position: rotary",
        """
masks:
  blocks: {type: BlockMask, view: image, ratio: [0.4, 0.6], share: 1.0, min_block: 1, num_tries: 9}
objectives:
  data2vec: {type: Data2Vec, encoder: image, mask: blocks, top: 2, target_norm: batch,
    predictor: {type: MLPPredictor, hidden: 16, layers: 1}}
""",
    ),
    "ijepa": (
        "ijepa",
        "pool: mean, position: sincos",
        """
masks: {targets: {type: MultiBlockMask, view: image}}
objectives:
  ijepa: {type: IJEPA, encoder: image, mask: targets, target_norm: batch,
    predictor: {type: JEPAPredictor, hidden: 8, depth: 1, num_heads: 2}}
""",
    ),
}


def system_of(name: str, folder: Path) -> System:
    feeds, more, rest = SYSTEMS[name]
    text = COMMON.replace("FEEDS", feeds).replace("MORE", more) + rest
    path = folder / f"{name}.yaml"
    path.write_text(text)
    torch.manual_seed(0)
    return build_system(read_recipe(path, require_data=False))


def pictures() -> Batch:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (16, 3, 8, 8), generator=generator).to(torch.uint8)
    return Batch(
        "pictures", {"image": values}, torch.arange(16) * 7919 + 5, tuple("abcdefghijklmnop")
    )


def train(system: System, steps: int = 4) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in system.parameters() if p.requires_grad], lr=3e-3)
    system.train()
    losses = []
    for index in range(steps):
        loss = system.loss(system.answers(pictures(), index=index, progress=index / 10))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for teacher in system.teachers.values():
            teacher.update(system, Unsharded(), index / 10)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_built_from_its_recipe_and_trains(name, tmp_path):
    system = system_of(name, tmp_path)
    before = {path: p.detach().clone() for path, p in system.named_parameters()}
    losses = train(system)
    assert all(loss == loss and abs(loss) < 100 for loss in losses)
    assert losses[-1] < losses[0]
    moved = {path for path, p in system.named_parameters() if not torch.equal(p, before[path])}
    still = set(before) - moved
    # What no objective reads: [CLS] where only tokens are, registers never alone.
    assert all("prefix" in path for path in still), still


def forwards(system: System) -> Counter[tuple[str, str]]:
    """Which module looked at pictures of which size, in one step."""
    seen: Counter[tuple[str, str]] = Counter()

    def note(who: str) -> None:
        def hook(module: nn.Module, arguments: tuple, output: object) -> None:
            view, mask = arguments[0], arguments[1]
            seen[who, f"{view.values.shape[-1]}{' masked' if mask is not None else ''}"] += 1

        room = system.encoders if who == "student" else system.teachers["ema"].encoders
        assert isinstance(room["image"], VisionTransformer)
        room["image"].register_forward_hook(hook)

    note("student"), note("teacher")
    system.loss(system.answers(pictures()))
    return seen


def test_dinov2_is_three_objectives_on_one_masked_forward(tmp_path):
    assert forwards(system_of("dinov2", tmp_path)) == {
        ("student", "8 masked"): 1,
        ("student", "4"): 1,
        ("teacher", "8"): 1,
    }


@pytest.mark.parametrize("name", ["data2vec", "ijepa"])
def test_without_taught_heads_there_is_a_teacher_too(name, tmp_path):
    assert forwards(system_of(name, tmp_path)) == {
        ("student", "8 masked"): 1,
        ("teacher", "8"): 1,
    }


def test_teachers_hold_copies_of_taught_heads_and_no_centre(tmp_path):
    teacher = system_of("dino", tmp_path).teachers["ema"]
    paths = {path for path, _ in teacher.named_parameters()}
    assert "objectives.dino.head.prototypes.weight" in paths
    assert any(path.startswith("encoders.image.") for path in paths)
    assert not [path for path, _ in teacher.named_buffers() if "targets" in path]
