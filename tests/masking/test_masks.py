import pytest
import torch

from ssl_scale.masking.block_mask import BlockMask
from ssl_scale.masking.multi_block_mask import MultiBlockMask
from ssl_scale.masking.random_mask import RandomMask
from ssl_scale.masking.sampler import MaskSampler
from ssl_scale.masking.token_mask import ITSELF, MASK_VECTOR, OTHER_TOKEN, TokenMask
from ssl_scale.rng import Draw
from ssl_scale.types import Layout


def layout(batch: int, crops: int = 2, grid: tuple[int, ...] = (14, 14)) -> Layout:
    places = 1
    for size in grid:
        places *= size
    return Layout(grid, torch.ones(batch, crops, places, dtype=torch.bool))


def seeds(batch: int) -> Draw:
    return Draw(torch.arange(batch) * 104729 + 11)


SAMPLERS: dict[str, tuple[MaskSampler, tuple[int, ...]]] = {
    "random": (RandomMask(0.75), (14, 14)),
    "block": (BlockMask(share=0.7), (14, 14)),
    "multi-block": (MultiBlockMask(), (14, 14)),
    "token": (TokenMask(), (40,)),
}
each_sampler = pytest.mark.parametrize("name", SAMPLERS)


@each_sampler
def test_a_sample_has_the_same_mask_in_any_batch(name):
    sampler, grid = SAMPLERS[name]
    draw, rows = seeds(12), torch.tensor([7, 2, 11])
    whole = sampler(layout(12, grid=grid), draw)
    part = sampler(layout(3, grid=grid), Draw(draw.seeds[rows]))
    assert torch.equal(part.hidden, whole.hidden[rows])
    for name in ("fill", "targets"):
        if getattr(whole, name) is not None:
            assert torch.equal(getattr(part, name), getattr(whole, name)[rows])


@each_sampler
def test_samples_and_crops_have_masks_of_their_own(name):
    sampler, grid = SAMPLERS[name]
    masks = sampler(layout(12, grid=grid), seeds(12)).hidden.flatten(0, 1)
    different = {tuple(mask.tolist()) for mask in masks if mask.any()}
    assert len(different) == int(masks.any(1).sum()) > 10


@each_sampler
def test_another_seed_gives_another_mask(name):
    sampler, grid = SAMPLERS[name]
    one = sampler(layout(4, grid=grid), seeds(4).child("one")).hidden
    two = sampler(layout(4, grid=grid), seeds(4).child("two")).hidden
    assert not torch.equal(one, two)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75, 0.9])
def test_random_masks_hide_equally_many_places_in_each_crop(ratio):
    hidden = RandomMask(ratio)(layout(6), seeds(6)).hidden
    assert set(hidden.sum(-1).flatten().tolist()) == {round(196 * ratio)}


def test_random_masks_hide_every_place_equally_often():
    hidden = RandomMask(0.75)(layout(4000, crops=1, grid=(4, 4)), seeds(4000)).hidden
    share = hidden.float().mean((0, 1))
    assert (share - 0.75).abs().max() < 0.03


def test_random_masks_leave_something_to_see_and_something_to_do():
    assert RandomMask(0.9)(layout(1, 1, (2,)), seeds(1)).hidden.sum() == 1
    assert RandomMask(0.1)(layout(1, 1, (2,)), seeds(1)).hidden.sum() == 1
    with pytest.raises(ValueError, match="grid must have at least 2 tokens"):
        RandomMask(0.5)(layout(1, 1, (1,)), seeds(1))


def test_block_masks_hide_a_share_in_their_range_of_about_their_share_of_crops():
    hidden = BlockMask((0.1, 0.5), share=0.5)(layout(400), seeds(400)).hidden.flatten(0, 1)
    share = hidden.float().mean(1)
    masked = share > 0
    assert 0.45 < masked.float().mean() < 0.55
    assert share.max() <= 0.5 + 1 / 196
    # What is aimed at is reached but for a few places.
    assert abs(share[masked].mean() - 0.3) < 0.02
    assert share[masked].min() > 0.08


def test_block_masks_hide_neighbours():
    def together(hidden: torch.Tensor) -> float:
        grid = hidden.view(-1, 14, 14)
        pairs = grid[:, :, 1:] & grid[:, :, :-1]
        return float(pairs.sum() / grid.sum())

    blocks = BlockMask((0.4, 0.4), share=1.0)(layout(50), seeds(50)).hidden
    places = RandomMask(0.4)(layout(50), seeds(50)).hidden
    assert together(blocks) > 0.7
    assert together(places) < 0.45


def test_block_masks_want_a_picture():
    with pytest.raises(ValueError, match=r"grid must have 2 axes, but is \(10,\)"):
        BlockMask()(layout(2, 1, (10,)), seeds(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"ratio": (0.5, 0.1)}, "ratio must rise"), ({"aspect": 2.0}, "aspect must be at most 1")],
)
def test_block_masks_refuse_impossible_ranges(arguments, message):
    with pytest.raises(ValueError, match=message):
        BlockMask(**arguments)


def extent(block: torch.Tensor) -> tuple[int, int]:
    """Height and width of what is true, which must be a full rectangle."""
    rows, columns = block.any(1).nonzero().flatten(), block.any(0).nonzero().flatten()
    height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
    assert int(block.sum()) == height * width
    return height, width


def test_multi_block_targets_are_rectangles_of_the_papers_sizes_and_one_size_a_crop():
    targets = MultiBlockMask()(layout(200), seeds(200)).targets.flatten(0, 1)
    sizes = [{extent(block.view(14, 14)) for block in crop} for crop in targets]
    assert targets.shape[1] == 4 and all(len(size) == 1 for size in sizes)
    heights, widths = zip(*(size.pop() for size in sizes), strict=True)
    areas = [height * width / 196 for height, width in zip(heights, widths, strict=True)]
    assert max(areas) <= 0.2
    assert 0.12 < min(areas) < 0.15 < sum(areas) / 400 < 0.18
    slopes = [height / width for height, width in zip(heights, widths, strict=True)]
    assert 0.6 < min(slopes) < 0.8 and 1.3 < max(slopes) < 1.8


def test_multi_block_targets_reach_every_border():
    hit = MultiBlockMask()(layout(200), seeds(200)).targets.view(-1, 14, 14).any(0)
    assert hit[0].any() and hit[-1].any() and hit[:, 0].any() and hit[:, -1].any()


def test_multi_block_contexts_are_what_the_targets_leave_of_a_large_square():
    mask = MultiBlockMask()(layout(200), seeds(200))
    seen, covered = ~mask.hidden, mask.targets.any(2)
    assert mask.mode == "drop"
    assert not (seen & covered).any()
    assert seen.any(-1).all()
    neither = (~seen & ~covered).float().mean(-1)
    # A context of all 14 x 14 places leaves none out; the smallest, of 13 x 13, leaves out 27.
    assert neither.min() == 0 and 0 < neither.max() <= 27 / 196


def test_multi_block_masks_leave_something_to_see_on_the_smallest_grids():
    for grid in ((2, 3), (3, 3), (5, 1)):
        mask = MultiBlockMask(3, (0.2, 0.33), context_ratio=(0.2, 0.3))(
            layout(300, 1, grid), seeds(300)
        )
        assert (~mask.hidden).any(-1).all()
        assert mask.targets.any(-1).all()
        assert not (~mask.hidden & mask.targets.any(2)).any()


def test_multi_block_masks_of_absent_pictures_are_empty():
    where = layout(3)
    where.valid[1] = False
    mask = MultiBlockMask()(where, seeds(3))
    assert not mask.hidden[1].any() and not mask.targets[1].any()
    assert mask.targets[[0, 2]].any(-1).all()


def test_multi_block_masks_want_a_picture_with_room_for_a_target():
    with pytest.raises(ValueError, match=r"grid must have 2 axes, but is \(10,\)"):
        MultiBlockMask()(layout(2, 1, (10,)), seeds(2))
    with pytest.raises(ValueError, match="grid must have at least 5 places for a target"):
        MultiBlockMask()(layout(2, 1, (2, 2)), seeds(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_ratio": (0.3, 0.1)}, "target_ratio must rise"),
        ({"target_aspect": (2.0, 1.0)}, "target_aspect must rise"),
        ({"context_ratio": (0.9, 1.1)}, "context_ratio must be at most 1"),
        ({"num_targets": 5}, "must be less than 1, or nothing is left to see, but is 1"),
    ],
)
def test_multi_block_masks_refuse_impossible_ranges(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiBlockMask(**arguments)


def lengths(*of: int, crops: int = 1, padded: int = 0) -> Layout:
    places = torch.arange(max(*of, padded))
    valid = places < torch.tensor(of)[:, None]
    return Layout((len(places),), valid[:, None].expand(-1, crops, -1))


def test_token_masks_hide_their_share_of_the_real_tokens_and_never_the_first():
    mask = TokenMask(0.15)(lengths(41, 21, 2, 1, 0), seeds(5))
    assert mask.hidden.sum(-1).flatten().tolist() == [6, 3, 1, 0, 0]
    assert not mask.hidden[..., 0].any()
    assert not (mask.hidden & ~lengths(41, 21, 2, 1, 0).valid).any()


def test_token_masks_do_not_depend_on_padding():
    draw = seeds(2)
    short = TokenMask()(lengths(30, 20, crops=2), draw)
    long = TokenMask()(lengths(30, 20, crops=2, padded=64), draw)
    assert torch.equal(short.hidden, long.hidden[..., :30])
    assert not long.hidden[..., 30:].any()
    assert torch.equal(short.fill, long.fill[..., :30])


def test_eight_of_ten_hidden_tokens_become_the_mask_vector():
    mask = TokenMask(0.5)(lengths(*[201] * 60), seeds(60))
    fill = mask.fill[mask.hidden]
    shares = [(fill == kind).float().mean().item() for kind in (MASK_VECTOR, OTHER_TOKEN, ITSELF)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_token_masks_refuse_shares_above_one():
    with pytest.raises(ValueError, match="replace \\+ random must be at most 1, but is 1.2"):
        TokenMask(replace=0.9, random=0.3)
