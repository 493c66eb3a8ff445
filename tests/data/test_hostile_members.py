"""Members of every type, damaged at random: each decodes or is bad, and nothing else happens."""

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image
from tokenizers import Tokenizer, models

from ssl_scale.data.array_field import ArrayField
from ssl_scale.data.audio_field import AudioField
from ssl_scale.data.decoding import FieldDecoder, LabelField, NumberField, UndecodableError
from ssl_scale.data.image_field import ImageField
from ssl_scale.data.ragged_image_field import RaggedImageField
from ssl_scale.data.text_field import TextField
from ssl_scale.data.video_field import VideoField

ROUNDS = 60


def picture(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def sound(kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(4000) / 9), 16_000, format=kind)
    return file.getvalue()


def film(kind: str, codec: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(6):
            grey = np.full((32, 32, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def array(save: object) -> bytes:
    file = io.BytesIO()
    if save is np.save:
        np.save(file, np.arange(12.0).reshape(4, 3))
    else:
        save(file, x=np.arange(12.0).reshape(4, 3))  # type: ignore[operator]
    return file.getvalue()


POINTS = ArrayField(["npy", "npz"], [-1, 3], entry="x", most=[1000])
JSON = json.dumps({"text": "one two", "cls": [1, 2], "x": 2.5}).encode()
MEMBERS = {
    **{f"{kind} in a square": (ImageField(kind, 16), kind, picture(kind))
       for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff")},
    **{f"{kind} in its shape": (RaggedImageField(kind, 16), kind, picture(kind))
       for kind in ("png", "jpeg", "webp")},
    **{kind: (AudioField(kind, 8_000, max_s=1), kind, sound(kind))
       for kind in ("wav", "flac", "mp3", "ogg")},
    **{kind: (VideoField(kind, 3, 16), kind, film(kind, codec))
       for kind, codec in (("mp4", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4"))},
    "npy": (POINTS, "npy", array(np.save)),
    "npz": (POINTS, "npz", array(np.savez)),
    "compressed npz": (POINTS, "npz", array(np.savez_compressed)),
    "class": (LabelField("cls", 10), "cls", b"7"),
    "classes in json": (LabelField("json", 10, multiple=True, entry="cls"), "json", JSON),
    "number in json": (NumberField("json", entry="x"), "json", JSON),
}  # fmt: skip


def damaged(member: bytes, rng: np.random.Generator) -> bytes:
    """Cut, or with some bytes changed, taken out or put in."""
    changed = bytearray(member)
    place = int(rng.integers(max(len(changed), 1)))
    size = int(rng.integers(1, 9))
    noise = rng.choice([rng.bytes(size), b"\0" * size, b"\xff" * size, b"\x7f" * size])
    how = rng.integers(4)
    if how == 0:
        return bytes(changed[:place])
    if how == 1:
        changed[place : place + size] = noise
    elif how == 2:
        del changed[place : place + size]
    else:
        changed[place:place] = noise
    return bytes(changed)


def attack(field: FieldDecoder, extension: str, member: bytes, rounds: int) -> int:
    """How many damaged members are found to be bad; whatever else is raised goes on."""
    rng, bad = np.random.default_rng(len(member)), 0
    for _ in range(rounds):
        try:
            value = field.decode(damaged(member, rng), extension)
        except UndecodableError as error:
            bad += 1
            assert str(error).startswith(("must ", "has ")), error
        else:
            field.collate([field.missing() if value is None else value])
    return bad


@pytest.mark.filterwarnings("ignore")  # decoders may well grumble
@pytest.mark.parametrize("name", MEMBERS)
def test_damage_makes_a_sample_bad_at_worst(name: str) -> None:
    field, extension, member = MEMBERS[name]
    intact = field.decode(member, extension)
    assert intact is not None
    assert attack(field, extension, member, ROUNDS) > 0


def test_a_damaged_text_is_bad_at_worst(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}
    Tokenizer(models.WordLevel(words, unk_token="[UNK]")).save(str(path))
    field = TextField(["txt", "json"], str(path), 8, entry="text")
    assert attack(field, "json", JSON, ROUNDS) > 0
    assert attack(field, "txt", "größe".encode(), ROUNDS) > 0
