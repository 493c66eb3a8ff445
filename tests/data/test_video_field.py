import builtins
import io
import pickle
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ssl_scale.data.assembly import Assembly
from ssl_scale.data.decoding import UndecodableError
from ssl_scale.data.film import open_film
from ssl_scale.data.source import Source
from ssl_scale.data.video_field import VideoField, choose_frames
from ssl_scale.errors import SslScaleError
from tests.data.shards import png, write_folder

STEP = 10


def film(
    kind: str = "mp4",
    codec: str = "libx264",
    frames: int = 20,
    size: tuple[int, int] = (48, 64),
    degrees: int = 0,
    sound_s: float = 0,
    **options: str,
) -> bytes:
    """Frame n is grey of brightness STEP * n; there are ten in a second."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "film"
        write_film(path, kind, codec, frames, size, degrees, sound_s, options)
        return path.read_bytes()


def write_film(
    path: Path,
    kind: str,
    codec: str,
    frames: int,
    size: tuple[int, int],
    degrees: int,
    sound_s: float,
    options: dict[str, str],
) -> None:
    container_options = {"movflags": options.pop("movflags")} if "movflags" in options else {}
    with av.open(str(path), "w", format=kind, options=container_options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = size
        stream.pix_fmt, stream.options = "yuv420p", options
        sound = container.add_stream("aac", rate=16_000) if sound_s else None
        if degrees:
            stream.set_display_rotation(degrees)
        for number in range(frames):
            grey = np.full((*size, 3), STEP * number, np.uint8)
            if degrees:
                grey[: size[0] // 4] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
        if sound:
            for start in range(0, int(16_000 * sound_s), 1024):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                frame.rate, frame.pts = 16_000, start
                container.mux(sound.encode(frame))
            container.mux(sound.encode())


def numbers(value: np.ndarray) -> list[int]:
    """Which frames these are."""
    return [round(float(frame.mean()) / STEP) for frame in value]


KINDS = [
    ("mp4", "libx264", {}),
    ("mp4", "libx264", {"g": "4", "bf": "2"}),
    ("mp4", "libx264", {"g": "5", "x264-params": "open-gop=1:bframes=2"}),
    ("mp4", "mpeg4", {}),
    ("matroska", "libx264", {"g": "6"}),
    ("webm", "libvpx", {}),
    ("webm", "libvpx-vp9", {}),
    ("avi", "mpeg4", {"g": "6"}),
    ("avi", "mpeg4", {"g": "6", "bf": "2", "qmax": "2"}),
    ("avi", "libx264", {"g": "6", "bf": "2"}),
    ("mpegts", "libx264", {"g": "6"}),
]


@pytest.mark.parametrize(("kind", "codec", "options"), KINDS)
def test_the_frames_are_those_that_were_chosen(
    kind: str, codec: str, options: dict[str, str]
) -> None:
    member = film(kind, codec, **options)
    for places in ([0, 1, 2, 3], [2, 7, 12, 17], [19, 19], [5, 13], list(range(20))):
        with open_film(member, 10**6) as opened:
            assert len(opened) == 20
            found = [np.asarray(frame) for frame in opened.frames(places)]
        assert numbers(np.stack(found)) == places


def test_frames_come_square_and_in_the_order_of_axes_that_views_have() -> None:
    field = VideoField("mp4", num_frames=4, size_px=16)
    value = field.decode(film(), "mp4")
    assert value.shape == (4, 3, 16, 16) and value.dtype == np.uint8
    assert numbers(value) == choose_frames(20, 4, None) == [2, 7, 12, 17]
    assert field.missing().shape == value.shape


def test_frames_far_apart_are_found_without_decoding_all_between() -> None:
    member = film(frames=24, g="4")
    damaged = bytearray(member)
    with av.open(io.BytesIO(member)) as container:
        packets = [packet for packet in container.demux() if packet.size]
    for packet in packets[10:20]:
        damaged[packet.pos + 4 : packet.pos + packet.size] = b"\0" * (packet.size - 4)
    with open_film(bytes(damaged), 10**6) as opened:
        found = [np.asarray(frame) for frame in opened.frames([1, 21])]
    assert numbers(np.stack(found)) == [1, 21]


def test_a_film_turned_by_its_container_stands_upright() -> None:
    upright = VideoField("mp4", 1, 32, fit="squash").decode(film(degrees=90), "mp4")[0, 0]
    # Stored with a bright bar on top; turned against the clock it is on the left.
    assert upright[:, :6].mean() > 200
    assert upright[:, 12:].mean() < 150


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
@pytest.mark.parametrize("sound_s", [0.5, 4.0])
def test_a_sound_track_may_be_shorter_or_longer(kind: str, sound_s: float) -> None:
    value = VideoField("mp4", num_frames=2, size_px=8).decode(film(kind, sound_s=sound_s), "mp4")
    assert numbers(value) == [5, 15]


@given(st.integers(1, 300), st.integers(1, 40), st.none() | st.integers(1, 50))
def test_chosen_frames_are_there_and_never_go_back(
    total: int, wanted: int, every: int | None
) -> None:
    chosen = choose_frames(total, wanted, every)
    assert len(chosen) == wanted and sorted(chosen) == chosen
    assert chosen[0] >= 0 and chosen[-1] < total
    if every is None:
        gaps = np.diff(chosen)
        assert not len(gaps) or gaps.max() - gaps.min() <= 1
    elif (wanted - 1) * every < total:
        assert set(np.diff(chosen)) <= {every}
        assert abs(chosen[0] - (total - 1 - chosen[-1])) <= 1


def test_a_short_film_is_repeated() -> None:
    value = VideoField("mp4", num_frames=6, size_px=8).decode(film(frames=3), "mp4")
    assert numbers(value) == [0, 0, 1, 1, 2, 2]
    value = VideoField("mp4", num_frames=4, size_px=8, every=2).decode(film(frames=5), "mp4")
    assert numbers(value) == [0, 2, 4, 4]


def test_a_batch_holds_films_and_says_who_has_none(tmp_path: Path) -> None:
    members = [{"mp4": film(frames=8), "n": b"1"}, {"n": b"1"}]
    write_folder(tmp_path / "set", [[(str(n), one) for n, one in enumerate(members)]])
    fields = {"film": VideoField("mp4", num_frames=2, size_px=8)}
    source = Source("s", tmp_path / "set", fields, shuffle=False)
    assembly = Assembly(source, 2)
    for row in range(2):
        assembly.read(row, source.locate(row))
    found = assembly.finish().fields
    assert found["film"].shape == (2, 2, 3, 8, 8)
    assert numbers(found["film"][0].numpy()) == [2, 6]
    assert not found["film"][1].any()
    assert found["film.present"].tolist() == [True, False]


MP4, FAST, WEBM = film(), film(movflags="faststart"), film("webm", "libvpx")
SOUND = film(frames=0, sound_s=0.2)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        *[(whole[: int(share * len(whole))], "must be a") for whole in (MP4, FAST, WEBM)
          for share in (0, 0.01, 0.1, 0.5, 0.8)],
        (FAST[:-40], "must be a whole film, but is cut short"),
        (WEBM[: int(0.8 * len(WEBM))], "must be a whole film, but is cut short"),
        (MP4[:700] + b"\0" * 40 + MP4[740:], "must be a film, but does not decode"),
        (b"not a film", "must be a film, but does not decode"),
        (film(size=(102, 100)), "must have at most 10000 pixels, but claims 100 x 102"),
        (SOUND, "must be a film, but has no pictures"),
    ],
)  # fmt: skip
def test_what_is_no_film_or_not_whole_is_bad(member: bytes, message: str) -> None:
    with pytest.raises(UndecodableError, match=message):
        VideoField("mp4", num_frames=20, size_px=8, max_pixels=10_000).decode(member, "mp4")


def test_frames_that_grow_beyond_what_the_container_says_are_bad() -> None:
    file = io.BytesIO()
    parts = [film("webm", "libvpx", frames=3, size=size) for size in ((48, 64), (480, 640))]
    with av.open(file, "w", format="webm") as joined:
        for number, part in enumerate(parts):
            with av.open(io.BytesIO(part)) as container:
                if not number:
                    stream = joined.add_stream_from_template(container.streams.video[0])
                for packet in container.demux():
                    if packet.size:
                        packet.pts += 300 * number
                        packet.dts, packet.stream = packet.pts, stream
                        joined.mux(packet)
    roomy, narrow = (VideoField("webm", 6, 8, max_pixels=n) for n in (10**6, 10_000))
    assert numbers(roomy.decode(file.getvalue(), "webm")) == [0, 1, 2, 0, 1, 2]
    with pytest.raises(UndecodableError, match="must be a film, but does not decode"):
        narrow.decode(file.getvalue(), "webm")


def test_a_playlist_opens_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.mp4").write_bytes(MP4)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UndecodableError, match="must be a film, but does not decode"):
        VideoField("mp4", 2, 8).decode(b"ffconcat version 1.0\nfile secret.mp4\n", "mp4")


def test_a_picture_is_no_film() -> None:
    with pytest.raises(UndecodableError, match="must be a film, but does not decode"):
        VideoField("mp4", 2, 8).decode(png(np.zeros((8, 8, 3), np.uint8)), "mp4")


def test_real_clips_of_several_kinds_decode(test_data: Path) -> None:
    field = VideoField("mp4", num_frames=4, size_px=32)
    with zipfile.ZipFile(test_data / "scene_clips" / "clips.zip") as archive:
        members = [archive.read(name) for name in archive.namelist()[:4]]
    with zipfile.ZipFile(test_data / "atari_clips" / "gifs.zip") as archive:
        members.append(archive.read(archive.namelist()[0]))
    members.append((test_data / "grid_av" / "bbaf2n.mpg").read_bytes())
    counts = []
    for member in members:
        with open_film(member, 10**6) as opened:
            counts.append(len(opened))
        assert field.decode(member, "mp4").std() > 5
    assert counts == [10, 10, 10, 10, 301, 75]


def test_a_gif_shows_what_pillow_shows(test_data: Path) -> None:
    with zipfile.ZipFile(test_data / "atari_clips" / "gifs.zip") as archive:
        member = archive.read(archive.namelist()[0])
    with Image.open(io.BytesIO(member)) as image, open_film(member, 10**6) as opened:
        for place, frame in zip((0, 7, 50), opened.frames([0, 7, 50]), strict=True):
            image.seek(place)
            assert np.abs(np.asarray(frame).astype(int) - image.convert("RGB")).max() <= 2


def test_a_field_travels_to_workers() -> None:
    field = pickle.loads(pickle.dumps(VideoField("mp4", num_frames=2, size_px=8)))
    assert field.decode(MP4, "mp4").shape == (2, 3, 8, 8)


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, *arguments: object, **more: object) -> object:
        if name == "av":
            raise ImportError(name)
        return importing(name, *arguments, **more)

    importing = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", find)
    with pytest.raises(SslScaleError, match=r"pip install 'ssl-scale\[video\]'"):
        VideoField("mp4", num_frames=2, size_px=8)
