import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from ssl_scale.data.decoding import (
    FieldDecoder,
    LabelField,
    NumberField,
    UndecodableError,
)
from ssl_scale.data.image_field import ImageField
from ssl_scale.data.text_field import TextField
from ssl_scale.errors import DataError
from ssl_scale.part import Spec
from tests.data.shards import png

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.enable_padding(length=50)
    made.enable_truncation(1)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return path


def picture(width: int, height: int, **saving: object) -> bytes:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 40)], -1)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, **{"format": "png", **saving})
    return file.getvalue()


def test_a_picture_of_the_right_size_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    value = ImageField("png", size_px=8).decode(png(pixels), "png")
    assert value.dtype == np.uint8
    assert np.array_equal(value, pixels.transpose(2, 0, 1))
    grey = ImageField("png", size_px=8, channels=1).decode(png(pixels[..., 0]), "png")
    assert np.array_equal(grey, pixels[None, ..., 0])


def test_crop_takes_the_middle_square_and_squash_takes_all() -> None:
    wide = picture(64, 16)
    crop = ImageField("png", size_px=16, fit="crop").decode(wide, "png")
    squash = ImageField("png", size_px=16, fit="squash").decode(wide, "png")
    assert crop.shape == squash.shape == (3, 16, 16)
    assert 24 * 4 - 4 <= crop[0].min() <= crop[0].max() <= 40 * 4
    assert squash[0].min() < 10
    assert squash[0].max() > 240


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8, :8, 0], upright[:8, 8:, 1], upright[8:, :8, 2] = 255, 255, 255
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that store it so
    image = Image.fromarray(upright)
    if orientation > 1:
        image = image.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "jpeg", exif=exif, quality=95, subsampling=0)
    value = ImageField("jpg", size_px=16).decode(file.getvalue(), "jpg").astype(int)
    assert np.abs(value - upright.transpose(2, 0, 1)).mean() < 12


def test_a_large_jpeg_decodes_to_what_its_full_size_gives() -> None:
    member = picture(512, 512, format="jpeg", quality=95)
    value = ImageField("jpg", size_px=64).decode(member, "jpg").astype(int)
    full = Image.open(io.BytesIO(member)).resize((64, 64), Image.Resampling.BILINEAR)
    assert np.abs(value - np.asarray(full).transpose(2, 0, 1)).max() < 8


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 1000], [30000, 65535]], np.uint16)).save(file, "png")
    value = ImageField("png", size_px=2, channels=1).decode(file.getvalue(), "png")
    assert value.tolist() == [[[0, 3], [117, 255]]]


@pytest.mark.parametrize("mode", ["P", "L", "LA", "RGBA", "CMYK", "1"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_colour_mode_becomes_the_channels_asked_for(mode: str, channels: int) -> None:
    file = io.BytesIO()
    Image.new("RGB", (9, 9), (200, 0, 0)).convert(mode).save(file, "tiff")
    value = ImageField("tif", size_px=8, channels=channels).decode(file.getvalue(), "tif")
    assert value.shape == (channels, 8, 8)


def test_webp_decodes_whatever_the_extension_says() -> None:
    pixels = np.asarray(Image.open(io.BytesIO(picture(16, 16))))
    member = picture(16, 16, format="webp", lossless=True)
    for extension in ("webp", "png"):
        value = ImageField(extension, size_px=16).decode(member, extension)
        assert np.array_equal(value, pixels.transpose(2, 0, 1))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


IMAGE = ImageField("png", size_px=8)


@pytest.mark.parametrize(
    ("decoder", "member", "message"),
    [
        (IMAGE, b"", "must be a picture, but does not decode"),
        (IMAGE, b"not a picture", "must be a picture, but does not decode"),
        (IMAGE, picture(64, 64)[:90], "must be a picture, but does not decode"),
        (IMAGE, picture(64, 64, format="jpeg")[:300], "must be a picture, but does not decode"),
        (IMAGE, bomb(9000, 9000), "must have at most 64000000 pixels, but claims 9000 x 9000"),
        (IMAGE, bomb(60000, 60000), "must be a picture, but does not decode"),
        (IMAGE, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "must be a picture, but"),
        (LabelField("cls", 10), b"10", r"must be a whole number in \[0, 10\), but is '10'"),
        (LabelField("cls", 10), b"-1", r"in \[0, 10\), but is '-1'"),
        (LabelField("cls", 10), b"cat", r"in \[0, 10\), but is 'cat'"),
        (LabelField("cls", 10), b"\xff1", r"in \[0, 10\), but is"),
        (LabelField("cls", 10), "²".encode(), r"in \[0, 10\), but is"),
        (LabelField("cls", 10, multiple=True), b"[1, 11]", r"in \[0, 10\), but is '11'"),
        (NumberField("num"), b"many", "must be a finite number, but is 'many'"),
        (NumberField("num"), b"nan", "must be a finite number, but is 'nan'"),
        (IMAGE, picture(64, 64, format="webp")[:200], "must be a picture, but does not decode"),
        (IMAGE, picture(64, 64, format="webp", lossless=True)[:40], "must be a picture, but does"),
    ],
)
def test_a_member_that_is_not_what_it_must_be(
    decoder: FieldDecoder, member: bytes, message: str
) -> None:
    with pytest.raises(UndecodableError, match=message):
        decoder.decode(member, decoder.extensions[0])


def test_labels_collate_to_numbers_or_to_a_row_of_classes() -> None:
    one = LabelField("cls", 5)
    assert one.collate([one.decode(b" 3\n", "cls"), one.missing()]).tolist() == [3, -1]
    many = LabelField("cls", 4, multiple=True)
    values = [many.decode(text, "cls") for text in (b"[0, 2]", b"1 3", b"2,2", b"", b"[]")]
    assert many.collate([*values, many.missing()]).tolist() == [
        [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0] * 4, [0] * 4, [-1] * 4,
    ]  # fmt: skip


def test_numbers_collate_with_nan_for_the_missing() -> None:
    field = NumberField("num")
    found = field.collate([field.decode(b"-2.5e1\n", "num"), field.missing()])
    assert found[0] == -25
    assert found[1].isnan()


def test_text_is_cut_inside_its_marks_whatever_the_file_says(tokenizer: Path) -> None:
    field = TextField("txt", "words", 4, paths={"words": str(tokenizer)})
    texts = [b"one two three one", b"two", b""]
    ragged = field.collate([*(field.decode(text, "txt") for text in texts), field.missing()])
    assert ragged.values.tolist() == [[2, 5, 6, 3], [2, 6, 3, 0], [2, 3, 0, 0], [0] * 4]
    assert ragged.lengths.tolist() == [4, 3, 2, 0]
    bare = TextField("txt", str(tokenizer), 4, begin=None, end=None)
    assert bare.decode(b"one nothing", "txt").tolist() == [5, 1]
    assert bare.vocab_size == len(WORDS)
    assert bare.token_id("[MASK]") == 4


def test_an_entry_of_json_is_read_as_a_member_of_its_own(tokenizer: Path) -> None:
    member = (
        b'{"about": {"captions": ["two", "one two"], "label": 3, "tags": [0, 2], "score": -25.5}}'
    )
    extensions = ["txt", "meta.json"]
    text = TextField(extensions, str(tokenizer), 4, entry="about.captions.1")
    assert text.decode(member, "meta.json").tolist() == [2, 5, 6, 3]
    assert text.decode(b"one two", "txt").tolist() == [2, 5, 6, 3]
    assert text.count(member, "meta.json") == 2
    label = LabelField(extensions, 5, entry="about.label")
    assert label.decode(member, "meta.json") == 3
    tags = LabelField(extensions, 5, multiple=True, entry="about.tags")
    assert tags.decode(member, "meta.json") == [0, 2]
    assert NumberField(extensions, entry="about.score").decode(member, "meta.json") == -25.5


def test_an_entry_that_is_null_means_that_the_sample_lacks_the_field(tokenizer: Path) -> None:
    member = b'{"x": null}'
    text = TextField("json", str(tokenizer), 4, entry="x")
    assert text.decode(member, "json") is None
    assert text.count(member, "json") is None
    assert LabelField("json", 5, entry="x").decode(member, "json") is None
    assert NumberField("json", entry="x").decode(member, "json") is None


@pytest.mark.parametrize("name", ["pkl", ".PKL", "label.pickle", "pth"])
def test_pickles_are_refused_with_the_reason_and_a_way_out(name: str) -> None:
    with pytest.raises(ValueError, match="would run whatever code it holds; store arrays as npy"):
        NumberField(["txt", name])


def test_text_that_is_not_utf8_is_bad(tokenizer: Path) -> None:
    with pytest.raises(UndecodableError, match="must be UTF-8 text, but is not"):
        TextField("txt", str(tokenizer), 4).decode(b"caf\xe9", "txt")


def test_a_tokenizer_that_is_missing_broken_or_lacks_a_token(
    tokenizer: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"none\.json: must be a tokenizer's file, but there is no"):
        TextField("txt", str(tmp_path / "none.json"), 4)
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(DataError, match=r"broken\.json: must be a tokenizer's file, but does not"):
        TextField("txt", str(broken), 4)
    with pytest.raises(DataError, match=r"must have the token '<s>', but has not"):
        TextField("txt", str(tokenizer), 4, begin="<s>")
    with pytest.raises(ValueError, match="must leave room .* but is 2"):
        TextField("txt", str(tokenizer), 2)


def test_a_role_reaches_the_field_through_its_spec(tokenizer: Path) -> None:
    spec = Spec.of(TextField, extension=["txt", "caption"], tokenizer="words", max_tokens=4)
    field = spec.build(paths={"words": str(tokenizer)})
    assert field.path == tokenizer
    assert field.extensions == ("txt", "caption")


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="extension must name at least one, but is"):
        NumberField([])
