import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_scale.data.assembly import Assembly
from ssl_scale.data.decoding import UndecodableError
from ssl_scale.data.ragged_image_field import RaggedImageField
from ssl_scale.data.source import Source
from ssl_scale.types import Ragged
from tests.data.shards import png, write_folder


def pixels(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 40)], -1).astype(np.uint8)


def encoded(image: np.ndarray, kind: str, **saving: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **saving)
    return file.getvalue()


@pytest.mark.parametrize(
    ("size", "multiple_px", "expected"),
    [
        ((30, 50), 1, (30, 50)),
        ((64, 64), 1, (64, 64)),
        ((640, 480), 1, (64, 48)),
        ((480, 640), 1, (48, 64)),
        ((30, 50), 16, (32, 48)),
        ((480, 640), 16, (48, 64)),
        ((1, 640), 16, (16, 64)),
        ((3, 5), 16, (16, 16)),
    ],
)
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_picture_keeps_its_shape_within_the_longest_side(
    size: tuple[int, int], multiple_px: int, expected: tuple[int, int], kind: str
) -> None:
    field = RaggedImageField("png", max_px=64, multiple_px=multiple_px)
    value = field.decode(encoded(pixels(*size), kind), "png")
    assert value.shape == (*expected, 3) and value.dtype == np.uint8


def test_a_picture_that_fits_keeps_its_pixels() -> None:
    image = pixels(12, 30)
    assert np.array_equal(RaggedImageField("png", max_px=30).decode(png(image), "png"), image)
    grey = RaggedImageField("png", max_px=30, channels=1).decode(png(image[..., 0]), "png")
    assert np.array_equal(grey, image[..., :1])


def test_a_large_jpeg_is_what_its_full_size_gives() -> None:
    member = encoded(pixels(600, 1000), "jpeg", quality=95)
    value = RaggedImageField("jpg", max_px=100).decode(member, "jpg").astype(int)
    full = Image.open(io.BytesIO(member)).resize((100, 60), Image.Resampling.BILINEAR)
    assert np.abs(value - np.asarray(full)).max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("max_px", [24, 80])
def test_a_turned_picture_stands_upright_in_its_own_shape(orientation: int, max_px: int) -> None:
    image = pixels(48, 80)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that store it so
    stored = Image.fromarray(image)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, "jpeg", exif=exif, quality=95, subsampling=0)
    value = RaggedImageField("jpg", max_px).decode(file.getvalue(), "jpg").astype(int)
    height, width = (48, 80) if max_px == 80 else (14, 24)
    assert value.shape == (height, width, 3)
    expected = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    assert np.abs(value - expected).mean() < 4


def test_a_batch_holds_pictures_of_any_shape_and_none(tmp_path: Path) -> None:
    images = [pixels(5, 9), pixels(8, 3)]
    members = [*({"png": png(image), "n": b"1"} for image in images), {"n": b"1"}]
    write_folder(tmp_path / "set", [[(str(n), one) for n, one in enumerate(members)]])
    fields = {"image": RaggedImageField("png", max_px=16)}
    source = Source("s", tmp_path / "set", fields, shuffle=False)
    assembly = Assembly(source, 3)
    for row in range(3):
        assembly.read(row, source.locate(row))
    batch = assembly.finish()
    found = batch.fields["image"]
    assert isinstance(found, Ragged) and list(batch.fields) == ["image"]
    assert found.values.shape == (3, 8, 9, 3) and found.values.dtype == torch.uint8
    assert found.lengths.tolist() == [[5, 9], [8, 3], [0, 0]]
    for row, image in enumerate(images):
        inside = found.values[row][found.valid[row]].reshape(image.shape)
        assert np.array_equal(inside.numpy(), image)
    assert not found.values[~found.valid].any()


JPEG, WEBP = encoded(pixels(64, 64), "jpeg"), encoded(pixels(64, 64), "webp", lossless=True)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (b"", "must be a picture, but does not decode"),
        (b"text", "must be a picture, but does not decode"),
        (JPEG[:-200], "must be a picture, but does not decode"),
        (JPEG[:20], "must be a picture, but does not decode"),
        (WEBP[:40], "must be a picture, but does not decode"),
        (encoded(pixels(101, 100), "png"), "at most 10000 pixels, but claims 100 x 101"),
        (encoded(pixels(101, 100), "jpeg"), "at most 10000 pixels, but claims 100 x 101"),
        (encoded(np.zeros((4, 4), np.int32), "tiff"), "must have 8 or 16 bits a channel"),
    ],
)
def test_a_member_that_is_no_picture_is_bad(member: bytes, message: str) -> None:
    with pytest.raises(UndecodableError, match=message):
        RaggedImageField("jpg", max_px=32, max_pixels=10_000).decode(member, "jpg")


def test_a_side_between_two_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="max_px must be a multiple of multiple_px, but is 100"):
        RaggedImageField("jpg", max_px=100, multiple_px=16)


def test_photographs_of_any_shape_stay_within_their_bounds(test_data: Path) -> None:
    field = RaggedImageField("jpg", max_px=96, multiple_px=16)
    with zipfile.ZipFile(test_data / "coco_captions" / "images.zip") as archive:
        members = [archive.read(name) for name in archive.namelist()[:12]]
    batch = field.collate([field.decode(member, "jpg") for member in members])
    assert batch.lengths.max() == 96 and not (batch.lengths % 16).any()
    assert len({tuple(size) for size in batch.lengths.tolist()}) > 1
