"""Layer-wise decay of the learning rate."""

import pytest
from torch import nn

from ssl_scale.encoders.text import TextTransformer
from ssl_scale.encoders.vision import VisionTransformer
from ssl_scale.errors import RecipeError
from ssl_scale.optim.group import Group
from ssl_scale.optim.groups import parameter_groups
from ssl_scale.optim.optimizer import AdamW
from ssl_scale.optim.schedule import Constant

DEPTH, DECAY = 3, 0.5


def system(**more: nn.Module) -> nn.Module:
    vision = VisionTransformer(
        width=8, depth=DEPTH, num_heads=2, patch=4, size_px=8, mask_token=True, registers=1
    )
    text = TextTransformer(
        width=8, depth=2, num_heads=2, max_tokens=4, norm_first=False, vocab_size=9
    )
    root = nn.Module()
    root.encoders = nn.ModuleDict({"image": vision, "text": text, **more})
    root.objectives = nn.ModuleDict({"dino": nn.Linear(8, 8)})
    return root


def scales(*groups: Group) -> dict[str, float]:
    optim = AdamW(Constant(1.0), layer_decay=DECAY, groups=groups)
    made = parameter_groups(system(), optim)
    return {name: group["lr_scale"] for group in made for name in group["names"]}


def number_of_vit_layer(name: str) -> int:
    """BEiT's ``get_num_layer_for_vit``, in our names."""
    if any(part in name for part in ("prefix", "mask_fill", "position", "stem")):
        return 0
    if "blocks." in name:
        return int(name.split("blocks.")[1].split(".")[0]) + 1
    return DEPTH + 1


def test_each_block_moves_slower_than_the_one_above() -> None:
    found = {name: scale for name, scale in scales().items() if name.startswith("encoders.image")}
    wanted = {name: DECAY ** (DEPTH + 1 - number_of_vit_layer(name)) for name in found}
    assert found == wanted
    assert sorted(set(found.values())) == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]


def test_heads_move_at_the_full_rate_and_a_norm_before_the_blocks_like_the_stem() -> None:
    found = scales()
    assert found["objectives.dino.weight"] == 1
    assert found["encoders.text.trunk.norm_before.weight"] == DECAY**3
    assert found["encoders.text.embedding.weight"] == DECAY**3
    assert found["encoders.text.trunk.blocks.1.attention.out.weight"] == DECAY


def test_groups_scale_on_top() -> None:
    found = scales(Group("encoders.image.stem.*", lr_scale=0.2))
    names = [name for name in found if name.startswith("encoders.image.stem.")]
    assert names and all(found[name] == pytest.approx(0.2 * DECAY**4) for name in names)


def test_an_encoder_without_blocks_is_refused() -> None:
    optim = AdamW(Constant(1.0), layer_decay=DECAY)
    with pytest.raises(RecipeError, match="one trunk of blocks, but encoders.tower has 0"):
        parameter_groups(system(tower=nn.Linear(8, 8)), optim)
