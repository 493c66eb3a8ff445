"""View makers: what they hand to encoders, and that a sample looks the same in any company."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ssl_scale.data.views.blur import GaussianBlur
from ssl_scale.data.views.color import ColorJitter, Grayscale, Solarize
from ssl_scale.data.views.image import AugmentedImage, ImageView
from ssl_scale.data.views.text import TextView
from ssl_scale.data.views.view import ViewMaker
from ssl_scale.rng import Draw
from ssl_scale.types import Batch, Ragged, View


def image_batch(n: int, channels: int = 3, height: int = 20, width: int = 26) -> Batch:
    generator = torch.Generator().manual_seed(n + channels)
    images = torch.randint(256, (n, channels, height, width), generator=generator)
    return make_batch({"image": images.to(torch.uint8)}, n)


def make_batch(fields: dict[str, Tensor | Ragged], n: int) -> Batch:
    seeds = torch.arange(n) * 7919 - 3
    return Batch("here", fields, seeds, tuple(str(place) for place in range(n)))


def take(batch: Batch, places: list[int]) -> Batch:
    fields = {}
    for name, value in batch.fields.items():
        assert isinstance(value, Tensor)
        fields[name] = value[places]
    return Batch(
        batch.source, fields, batch.seeds[places], tuple(batch.keys[place] for place in places)
    )


def make(maker: ViewMaker, batch: Batch) -> View:
    return maker(batch, Draw(batch.seeds).child("a view"))


EVERYTHING = {
    "rotate_degrees": 20.0,
    "translate": 0.1,
    "pixels": (
        ColorJitter(probability=0.7),
        Grayscale(0.3),
        GaussianBlur(probability=(0.9, 0.1)),
        Solarize(probability=(0.0, 0.5)),
    ),
}


@pytest.mark.parametrize(
    ("channels", "side", "size_px"), [(3, 40, 24), (1, 8, 8), (3, 64, 17), (1, 150, 224)]
)
def test_a_sample_looks_the_same_in_any_batch_to_the_last_bit(
    channels: int, side: int, size_px: int
) -> None:
    batch = image_batch(8, channels, side, side + 1)
    for maker in (
        AugmentedImage("image", size_px, **EVERYTHING),
        ImageView("image", size_px),
    ):
        together = make(maker, batch).values
        backwards = make(maker, take(batch, list(range(7, -1, -1)))).values
        assert torch.equal(together.flip(0), backwards)
        for place in range(8):
            assert torch.equal(make(maker, take(batch, [place])).values[0], together[place])


def test_samples_crops_and_views_are_drawn_apart() -> None:
    batch = make_batch({"image": image_batch(1).fields["image"][0].expand(4, -1, -1, -1)}, 4)
    maker = AugmentedImage("image", 16, **EVERYTHING)
    looks = [*make(maker, batch).values.flatten(0, 1)]
    looks += [*maker(batch, Draw(batch.seeds).child("another view")).values.flatten(0, 1)]
    for place, look in enumerate(looks):
        assert not any(torch.equal(look, other) for other in looks[:place])


def test_crops_have_the_shape_and_range_encoders_expect() -> None:
    view = make(
        AugmentedImage("image", 12, crops=3, **{**EVERYTHING, "pixels": ()}), image_batch(5)
    )
    assert view.values.shape == (5, 3, 3, 12, 12) and view.values.dtype == torch.float32
    assert view.values.min() >= -1 and view.values.max() <= 1
    assert view.valid.shape == (5, 3, 1) and view.valid.all()
    assert torch.equal(view.seeds, image_batch(5).seeds)


def test_no_augmentation_is_the_plain_view() -> None:
    batch = image_batch(4, 3, 16, 16)
    plain = make(ImageView("image"), batch).values
    still = AugmentedImage("image", 16, crops=1, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    torch.testing.assert_close(make(still, batch).values, plain, atol=1e-4, rtol=0)


def test_the_plain_view_normalises_each_channel() -> None:
    batch = image_batch(2)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    view = make(ImageView("image", mean=mean, std=std), batch)
    images = batch.fields["image"]
    assert isinstance(images, Tensor)
    expected = (images.numpy() / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(view.values[:, 0].numpy(), expected, atol=1e-5)


def test_the_plain_view_resizes_like_pil() -> None:
    smooth = np.add.outer(np.arange(40) * 3, np.arange(60) * 2).astype(np.uint8)
    batch = make_batch({"image": torch.from_numpy(smooth)[None, None]}, 1)
    view = make(ImageView("image", 20, mean=(0.0,), std=(1.0,)), batch)
    resized = np.asarray(Image.fromarray(smooth).resize((30, 20), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(view.values[0, 0, 0] * 255, resized[:, 5:25], atol=1.0)


def test_a_sample_without_the_image_is_nowhere_valid() -> None:
    images, present = image_batch(3).fields["image"], torch.tensor([True, False, True])
    assert isinstance(images, Tensor)
    images[1] = 0
    batch = make_batch({"image": images, "image.present": present}, 3)
    for maker in (ImageView("image", 8), AugmentedImage("image", 8, **EVERYTHING)):
        view = make(maker, batch)
        assert torch.equal(view.present, present[:, None].expand(-1, view.values.shape[1]))
        assert view.values.isfinite().all()


def test_text_is_passed_on_with_its_lengths() -> None:
    tokens = Ragged(torch.tensor([[5, 6, 7], [8, 0, 0], [0, 0, 0]]), torch.tensor([3, 1, 0]))
    view = make(TextView("caption"), make_batch({"caption": tokens}, 3))
    assert torch.equal(view.values, tokens.values[:, None])
    assert view.valid[:, 0].tolist() == [[True] * 3, [True, False, False], [False] * 3]
    assert view.present[:, 0].tolist() == [True, True, False]


def test_an_absent_field_is_named() -> None:
    with pytest.raises(ValueError, match="'here' must have the field 'photo', but has"):
        make(ImageView("photo"), image_batch(1))


def test_fields_of_the_wrong_kind_are_named() -> None:
    batch = make_batch({"text": Ragged(torch.ones(1, 1), torch.ones(1))}, 1)
    with pytest.raises(ValueError, match="'text' must be a tensor, but is ragged"):
        make(ImageView("text"), batch)
    with pytest.raises(ValueError, match="'image' must be ragged, but is a tensor"):
        make(TextView("image"), image_batch(1))
    floats = make_batch({"image": torch.rand(1, 3, 4, 4)}, 1)
    with pytest.raises(ValueError, match="must be uint8 .* but are torch.float32"):
        make(ImageView("image"), floats)


def test_a_mean_for_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="mean must hold 1 or 1 numbers"):
        make(ImageView("image", mean=(0.1, 0.2, 0.3)), image_batch(1, channels=1))


def test_operations_with_another_number_of_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="one number or 3"):
        AugmentedImage("image", 8, crops=3, pixels=(Solarize(probability=(0.0, 0.2)),))
