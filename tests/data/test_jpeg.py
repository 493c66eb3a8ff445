import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_scale.data.image_field import ImageField
from ssl_scale.data.jpeg import decode_jpeg


def photograph(width: int, height: int, mode: str = "RGB", **saving: object) -> bytes:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([127 + 90 * np.sin(x / 9), 127 + 90 * np.cos(y / 7), x + y], -1)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode).save(
        file, "jpeg", quality=90, **saving
    )
    return file.getvalue()


def by_pillow(member: bytes, channels: int) -> np.ndarray:
    image = Image.open(io.BytesIO(member)).convert({1: "L", 3: "RGB"}[channels])
    return np.asarray(image).reshape(image.height, image.width, channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_a_picture_of_the_right_size_lands_in_its_place(
    channels: int, mode: str, subsampling: int
) -> None:
    member = photograph(48, 32, mode, **({} if mode == "L" else {"subsampling": subsampling}))
    room = np.zeros((3, 32, 48, channels), np.uint8)
    assert decode_jpeg(member, room[1], 10**6) is not None
    difference = np.abs(room[1].astype(int) - by_pillow(member, channels))
    # Brightness is taken as the file has it, Pillow makes it of rounded colours.
    assert difference.max() <= (2 if (mode, channels) == ("RGB", 1) else 0)
    assert not room[0].any()
    assert not room[2].any()


def test_a_larger_picture_is_decoded_no_larger_than_needed() -> None:
    member = photograph(640, 480)
    shapes = {
        size: decode_jpeg(member, np.empty((size, size, 3), np.uint8), 10**6).shape
        for size in (60, 100, 200, 300)
    }
    assert shapes == {60: (60, 80, 3), 100: (120, 160, 3), 200: (240, 320, 3), 300: (480, 640, 3)}
    smaller = ImageField("jpg", size_px=100).decode(member, "jpg").astype(int)
    whole = Image.fromarray(by_pillow(member, 3)).resize((100, 100), box=(80, 0, 560, 480))
    assert np.abs(smaller - np.asarray(whole).transpose(2, 0, 1)).mean() < 4


@pytest.mark.parametrize(
    ("member", "channels"),
    [
        (photograph(16, 16, "CMYK"), 3),
        (photograph(16, 16), 4),
        (b"GIF89a", 3),
        (b"", 3),
        (b"\xff\xd8\xff", 3),
        (photograph(16, 16)[:-200], 3),
        (b"\xff\xd8\xff\xe1\x00\x10Exif\0\0nonsense", 3),
    ],
    ids=["four inks", "alpha", "no JPEG", "nothing", "a beginning", "cut short", "broken EXIF"],
)
def test_what_is_out_of_the_ordinary_is_left_to_pillow(member: bytes, channels: int) -> None:
    assert decode_jpeg(member, np.empty((16, 16, channels), np.uint8), 10**6) is None


def test_turned_and_oversized_pictures_are_left_to_pillow() -> None:
    exif = Image.Exif()
    place = np.empty((16, 16, 3), np.uint8)
    exif[0x0112] = 1
    assert decode_jpeg(photograph(16, 16, exif=exif, comment=b"x" * 99), place, 256) is place
    assert decode_jpeg(photograph(16, 16, exif=exif), place, 255) is None
    exif[0x0112] = 6
    assert decode_jpeg(photograph(16, 16, exif=exif, comment=b"x" * 99), place, 256) is None


@pytest.mark.parametrize("saving", [{}, {"progressive": True}, {"comment": b"x" * 3000}])
def test_the_size_is_known_wherever_the_file_has_it(saving: dict[str, object]) -> None:
    member = photograph(24, 16, **saving)
    place = np.zeros((16, 24, 3), np.uint8)
    assert decode_jpeg(member, place, 10**6) is place
    assert np.array_equal(place, by_pillow(member, 3))


def test_a_size_that_is_only_said_in_passing_is_not_believed() -> None:
    member = photograph(16, 16)
    tables = member.index(b"\xff\xdb")
    passing = b"\xff\xfe\x00\x0c" + b"\xff\xc0\x00\x11\x08\x00\x20\x00\x20\x03"
    table = member[tables : tables + 2 + int.from_bytes(member[tables + 2 : tables + 4], "big")]
    member = member.replace(table, table + passing)
    found = decode_jpeg(member, np.empty((32, 32, 3), np.uint8), 10**6)
    assert found is not None
    assert np.array_equal(found, by_pillow(member, 3))
    assert decode_jpeg(member, place := np.empty((16, 16, 3), np.uint8), 10**6) is place


def test_photographs_decode_as_pillow_decodes_them(test_data: Path) -> None:
    import zipfile

    with zipfile.ZipFile(test_data / "coco_captions" / "images.zip") as archive:
        members = [archive.read(name) for name in archive.namelist()[:12]]
    for member in members:
        expected = by_pillow(member, 3)
        place = np.empty(expected.shape, np.uint8)
        assert decode_jpeg(member, place, 10**7) is place
        assert np.array_equal(place, expected)
