"""Pictures a second of one core: what decodes JPEG fastest, small ones and whole photographs.

The pictures are scikit-learn's two photographs, cut and resized; large ones are made of both side
by side, so that they have as much detail. Contestants take turns and figures are medians of turns,
in seconds of processor time, since other work may run on the machine. `ImageField` is what training
uses: it checks the EXIF orientation and the size, decodes with simplejpeg into the batch or smaller
by the cosine transform (DCT), and resizes with Pillow.
"""

import gc
import io
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import simplejpeg
from PIL import Image
from sklearn.datasets import load_sample_images

from ssl_scale.data.film import open_film
from ssl_scale.data.image_field import ImageField
from tests.benchmarks.run import Row

Decode: TypeAlias = Callable[[bytes], Any]
_TURNS, _TURN_S, _PICTURES = 9, 0.25, 24
_FRAMES, _TAKEN = 240, 4


def rows() -> list[Row]:
    """Measure."""
    return [
        *_same_size(64, goal=1.5),
        *_same_size(224, goal=1.0),
        *_photographs(640, 426, "0.3 megapixels"),
        *_photographs(2560, 1704, "4.4 megapixels"),
        _film(),
    ]


def _same_size(size_px: int, goal: float) -> list[Row]:
    rng, whole = np.random.default_rng(0), _photograph(640, 426)
    members = []
    for _ in range(_PICTURES):
        left, top = rng.integers(640 - 400), rng.integers(426 - 400)
        cut = whole.crop((left, top, left + 400, top + 400)).resize((size_px, size_px))
        members.append(_encoded(cut))
    field, place = ImageField("jpg", size_px), np.empty((size_px, size_px, 3), np.uint8)
    rates = _rates(
        members,
        {
            "ImageField": lambda member: field.decode_into(place, member, "jpg"),
            "simplejpeg": simplejpeg.decode_jpeg,
            "Pillow": lambda member: np.asarray(Image.open(io.BytesIO(member)).convert("RGB")),
            **_turbojpeg(lambda turbo, member: turbo.decode(member, 0)),
        },
    )
    return _rows(f"JPEG of {size_px} px", rates, "Pillow", goal)


def _photographs(width: int, height: int, name: str) -> list[Row]:
    members = [_encoded(_photograph(width, height).rotate(turn)) for turn in (0, 180)]
    target = (224, 224)
    field, place = ImageField("jpg", 224), np.empty((224, 224, 3), np.uint8)

    def by_pillow(member: bytes, is_scaled: bool) -> Any:
        with Image.open(io.BytesIO(member)) as image:
            if is_scaled:
                image.draft(None, target)
            return np.asarray(_middle(image.convert("RGB")))

    def by_simplejpeg(member: bytes) -> Any:
        return np.asarray(_middle(Image.fromarray(simplejpeg.decode_jpeg(member))))

    def by_turbojpeg(turbo: Any, member: bytes) -> Any:
        scale = max(n for n in (1, 2, 4, 8) if height // n >= 224)
        return np.asarray(_middle(Image.fromarray(turbo.decode(member, 0, (1, scale)))))

    rates = _rates(
        members,
        {
            "ImageField": lambda member: field.decode_into(place, member, "jpg"),
            "simplejpeg, all of it": by_simplejpeg,
            "Pillow, scaled by DCT": lambda member: by_pillow(member, True),
            "Pillow, all of it": lambda member: by_pillow(member, False),
            **_turbojpeg(by_turbojpeg, ", scaled by DCT"),
        },
    )
    return _rows(f"photograph of {name} to 224 px", rates, "Pillow, all of it", goal=1.0)


def _film() -> Row:
    """Frames far apart, decoded from the key frames before them, and by decoding all."""
    member = _encoded_film()
    places = [(2 * n + 1) * _FRAMES // (2 * _TAKEN) for n in range(_TAKEN)]

    def take(member: bytes, places: Sequence[int]) -> Any:
        with open_film(member, 10**7) as film:
            return [np.asarray(frame) for frame in film.frames(places)][:: len(places) // _TAKEN]

    every = list(range(_FRAMES))
    rates = _rates(
        [member],
        {"some": lambda member: take(member, places), "all": lambda member: take(member, every)},
    )
    return {
        "measure": f"film of 320 x 240, {_TAKEN} of {_FRAMES} frames by key frames",
        "value": round(statistics.median(rates["some"])),
        "unit": "films/s",
        "against": "decoding all frames",
        "ratio": round(_ratio(rates, "some", "all"), 2),
        "goal": None,
        "met": None,
    }


def _rates(members: Sequence[bytes], decoders: dict[str, Decode]) -> dict[str, list[float]]:
    """Members a second of processor time, for each turn."""
    rates: dict[str, list[float]] = {name: [] for name in decoders}
    for decode in decoders.values():
        decode(members[0])
    for turn in range(_TURNS):
        names = list(decoders)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            gc.collect()
            done, began = 0, time.process_time()
            while (took := time.process_time() - began) < _TURN_S:
                for member in members:
                    decoders[name](member)
                done += len(members)
            rates[name].append(done / took)
    return rates


def _rows(what: str, rates: dict[str, list[float]], baseline: str, goal: float) -> list[Row]:
    rows: list[Row] = []
    for name, turns in rates.items():
        ratio, is_ours = _ratio(rates, name, baseline), name == "ImageField"
        rows.append(
            {
                "measure": f"{what}: {name}",
                "value": round(statistics.median(turns)),
                "unit": "pictures/s",
                "against": None if name == baseline else baseline,
                "ratio": None if name == baseline else round(ratio, 2),
                "goal": f"at least {goal:g} x" if is_ours else None,
                "met": ratio >= goal if is_ours else None,
            }
        )
    if not any("PyTurboJPEG" in name for name in rates):
        rows.append(
            {
                "measure": f"{what}: PyTurboJPEG", "value": None,
                "unit": "it, or libturbojpeg, is not installed", "against": baseline,
                "ratio": None, "goal": None, "met": None,
            }
        )  # fmt: skip
    return rows


def _ratio(rates: dict[str, list[float]], name: str, baseline: str) -> float:
    pairs = zip(rates[name], rates[baseline], strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


def _turbojpeg(decode: Callable[[Any, bytes], Any], how: str = "") -> dict[str, Decode]:
    """PyTurboJPEG, where it and its library are installed; 0 stands for RGB."""
    try:
        from turbojpeg import TurboJPEG

        turbo = TurboJPEG()
    except (ImportError, RuntimeError):
        return {}
    return {f"PyTurboJPEG{how}": lambda member: decode(turbo, member)}


def _middle(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((224, 224), Image.Resampling.BILINEAR, box=box)


def _photograph(width: int, height: int) -> Image.Image:
    """The two photographs in turns, as often as they fit in."""
    first, second = (image[:426] for image in load_sample_images().images)
    rows, columns = -(-height // 426), -(-width // 640)
    tiles = [[(first, second)[(x + y) % 2] for x in range(columns)] for y in range(rows)]
    pixels = np.concatenate([np.concatenate(row, axis=1) for row in tiles])
    return Image.fromarray(np.ascontiguousarray(pixels[:height, :width]))


def _encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "jpeg", quality=90)
    return file.getvalue()


def _encoded_film() -> bytes:
    import av

    file, whole = io.BytesIO(), _photograph(640, 426)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.options = {"g": "30"}
        for number in range(_FRAMES):
            left, top = number, number // 2
            frame = whole.crop((left, top, left + 320, top + 240))
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return file.getvalue()
