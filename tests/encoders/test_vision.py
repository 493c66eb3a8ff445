"""Vision transformers: sizes, masks, picture sizes."""

import pytest
import torch

from ssl_scale.encoders.vision import VisionTransformer
from ssl_scale.types import Mask, View
from tests.encoders.inputs import pictures, vision

# Parameters without a classifier, in millions. tiny to huge: the papers' figures (DeiT, table 1;
# ViT, table 1); giant, gigantic: Scaling Vision Transformers, table 2; giant2: DINOv2, table 17.
PUBLISHED = {
    "tiny": (5.5, 16, "gelu"),
    "small": (21.7, 16, "gelu"),
    "base": (86, 16, "gelu"),
    "large": (304, 16, "gelu"),
    "huge": (632, 14, "gelu"),
    "giant": (1011, 14, "gelu"),
    "gigantic": (1843, 14, "gelu"),
    "giant2": (1136, 14, "swiglu"),
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_have_the_published_number_of_parameters(preset: str) -> None:
    millions, patch, mlp = PUBLISHED[preset]
    with torch.device("meta"):
        encoder = VisionTransformer(preset=preset, patch=patch, mlp=mlp)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_arguments_override_the_preset_and_are_needed_without_one() -> None:
    with torch.device("meta"):
        encoder = VisionTransformer(preset="tiny", depth=3, registers=4)
    assert encoder.width == 192
    assert len(encoder.trunk.blocks) == 3
    with pytest.raises(ValueError, match="depth, num_heads must be given where there is no preset"):
        VisionTransformer(width=8)
    with pytest.raises(ValueError, match="width must be a multiple of num_heads=5, but is 24"):
        vision(num_heads=5)


@pytest.mark.parametrize("position", ["learned", "sincos", "rotary"])
def test_other_picture_sizes_are_encoded(position: str) -> None:
    encoder, view = vision(position=position), pictures(size=(12, 6))
    assert encoder.layout(view).grid == (6, 3)
    assert encoder(view).tokens.shape == (3, 2, 18, 24)


def test_pictures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of patch=2, but are 9 x 8"):
        vision()(pictures(size=(9, 8)))
    with pytest.raises(ValueError, match=r"1 channels, height, width\], but are \[3, 2, 3, 8, 8\]"):
        vision()(pictures().but(values=torch.zeros(3, 2, 3, 8, 8)))


def some_hidden(view: View) -> torch.Tensor:
    return torch.rand(*view.valid.shape[:2], 16) < 0.5


def test_replaced_patches_leave_no_trace() -> None:
    encoder, view = vision(mask_token=True), pictures()
    mask = Mask(some_hidden(view), "replace")
    pixels = mask.hidden.view(3, 2, 1, 4, 4).repeat_interleave(2, 3).repeat_interleave(2, 4)
    other = view.but(values=torch.where(pixels, torch.randn_like(view.values), view.values))
    torch.testing.assert_close(encoder(other, mask).tokens, encoder(view, mask).tokens)
    assert (encoder(other).tokens - encoder(view).tokens).abs().max() > 0.01


def test_the_mask_vector_stands_where_patches_are_hidden() -> None:
    encoder, view = vision(mask_token=True), pictures()
    mask = Mask(some_hidden(view), "replace")
    stem = encoder(view, mask, keep=("stem",)).kept["stem"] - encoder.position.table
    plain = encoder(view, keep=("stem",)).kept["stem"] - encoder.position.table
    vector = encoder.mask_fill.token
    torch.testing.assert_close(stem[mask.hidden], vector.expand(int(mask.hidden.sum()), -1))
    torch.testing.assert_close(stem[~mask.hidden], plain[~mask.hidden])


def test_fill_chooses_vector_other_patch_or_itself() -> None:
    encoder, view = vision(mask_token=True), pictures()
    hidden = torch.ones(3, 2, 16, dtype=torch.bool)
    hidden[..., 0] = False
    fill = (torch.arange(16) % 3).to(torch.int8).expand(3, 2, -1)
    stem = encoder(view, Mask(hidden, "replace", fill), keep=("stem",)).kept["stem"]
    stem = stem - encoder.position.table
    plain = encoder(view, keep=("stem",)).kept["stem"] - encoder.position.table
    torch.testing.assert_close(stem[..., 2::3, :], plain[..., 2::3, :])
    torch.testing.assert_close(
        stem[..., 3::3, :], encoder.mask_fill.token.expand_as(stem[..., 3::3, :])
    )
    for place in range(1, 16, 3):
        distance = (stem[:, :, place, None] - plain).abs().amax(-1)
        nearest = distance.argmin(-1)
        assert distance.amin(-1).max() < 1e-6
        assert (nearest != place).all()
    assert not torch.equal(plain, stem)


def test_a_mask_vector_exists_only_if_asked_for() -> None:
    encoder, view = vision(), pictures()
    assert not [name for name, _ in encoder.named_parameters() if "mask" in name]
    with pytest.raises(ValueError, match="mask_token must be true"):
        encoder(view, Mask(some_hidden(view), "replace"))


def test_input_mask_zeroes_pixels_before_the_stem() -> None:
    encoder, view = vision(), pictures()
    hidden = some_hidden(view)
    blank = view.values.clone()
    for i, j, place in hidden.nonzero().tolist():
        row, column = divmod(place, 4)
        blank[i, j, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 0
    got = encoder(view, Mask(hidden, "input"))
    torch.testing.assert_close(got.tokens, encoder(view.but(values=blank)).tokens)


def test_equal_visible_counts_keep_their_order() -> None:
    encoder, view = vision(), pictures()
    hidden = torch.rand(3, 2, 16).argsort(-1) < 12
    features = encoder(view, Mask(hidden, "drop"))
    assert features.tokens.shape == (3, 2, 4, 24)
    assert features.valid.all()
    for i in range(3):
        assert features.origin[i, 0].tolist() == (~hidden[i, 0]).nonzero()[:, 0].tolist()


def test_patch_values_counts_the_numbers_of_a_patch() -> None:
    with torch.device("meta"):
        assert VisionTransformer(preset="tiny").patch_values == 768
