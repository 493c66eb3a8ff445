import builtins
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ssl_scale.data.assembly import Assembly
from ssl_scale.data.audio_field import AudioField
from ssl_scale.data.decoding import UndecodableError
from ssl_scale.data.source import Source
from ssl_scale.errors import SslScaleError
from tests.data.shards import write_folder

RATE_HZ = 16_000


def tone(seconds: float = 1.0, rate_hz: int = RATE_HZ, channels: int = 1) -> np.ndarray:
    """Sines of 440 Hz and its multiples, ``[samples, channels]``."""
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    pitches = 440 * np.arange(1, channels + 1)
    return (0.4 * np.sin(2 * np.pi * time[:, None] * pitches)).astype(np.float32)


def encoded(
    sound: np.ndarray, kind: str = "WAV", rate_hz: int = RATE_HZ, subtype: str | None = None
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound, rate_hz, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "subtype", "error"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "FLOAT", 0),
        ("FLAC", "PCM_24", 1e-6),
        ("MP3", None, 0.02),
        ("OGG", "VORBIS", 0.05),
    ],
)
def test_every_format_gives_its_samples_whatever_the_extension_says(
    kind: str, subtype: str | None, error: float
) -> None:
    sound = tone()
    value = AudioField("wav", RATE_HZ, max_s=5).decode(encoded(sound, kind, subtype=subtype), "wav")
    assert value.shape == (RATE_HZ, 1) and value.dtype == np.float32
    assert np.abs(value - sound)[500:-500].max() <= error


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(rate_hz: int) -> None:
    member = encoded(tone(1.0, rate_hz), rate_hz=rate_hz, subtype="FLOAT")
    value = AudioField("wav", RATE_HZ, max_s=5).decode(member, "wav")
    assert value.shape == (RATE_HZ, 1) and value.dtype == np.float32
    assert np.abs(value - tone())[500:-500].max() < 2e-3
    with pytest.raises(UndecodableError, match=f"must have 16000 Hz, but has {rate_hz} Hz; allow"):
        AudioField("wav", RATE_HZ, max_s=5, resample=False).decode(member, "wav")


def test_what_lies_above_half_the_rate_does_not_fold_down() -> None:
    time = np.arange(48_000) / 48_000
    member = encoded(np.sin(2 * np.pi * 11_000 * time), rate_hz=48_000, subtype="FLOAT")
    value = AudioField("wav", RATE_HZ, max_s=5).decode(member, "wav")
    assert np.abs(value[500:-500]).max() < 0.01


def test_long_sound_is_cut_and_the_rest_not_even_decoded() -> None:
    sound = tone(3.0)
    field = AudioField("flac", RATE_HZ, max_s=0.5)
    member = encoded(sound, "FLAC")
    value = field.decode(member, "flac")
    assert value.shape == (8_000, 1)
    assert np.abs(value - sound[:8_000]).max() < 1e-4
    damaged = member[: len(member) // 2] + b"\0" * (len(member) - len(member) // 2)
    assert np.array_equal(field.decode(damaged, "flac"), value)


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 22_050])
def test_no_sound_is_longer_than_the_longest(rate_hz: int) -> None:
    field = AudioField("wav", RATE_HZ, max_s=0.0999)
    value = field.decode(encoded(tone(0.5, rate_hz), rate_hz=rate_hz), "wav")
    assert len(value) == field.max_samples == 1598


def test_channels_are_mixed_or_kept_or_demanded() -> None:
    sound = tone(0.1, channels=2)
    member = encoded(sound, subtype="FLOAT")
    one = AudioField("wav", RATE_HZ, max_s=1).decode(member, "wav")
    assert np.abs(one[:, 0] - sound.mean(1)).max() < 1e-6
    assert np.array_equal(AudioField("wav", RATE_HZ, 1, channels=2).decode(member, "wav"), sound)
    assert np.array_equal(AudioField("wav", RATE_HZ, 1, channels=None).decode(member, "wav"), sound)
    with pytest.raises(UndecodableError, match="must have 3 channels, but has 2"):
        AudioField("wav", RATE_HZ, 1, channels=3).decode(member, "wav")


def test_batches_are_ragged_in_samples_and_where_asked_in_channels(tmp_path: Path) -> None:
    sounds = [tone(0.01, channels=2), tone(0.02, channels=1)]
    members = [{"wav": encoded(sound, subtype="FLOAT"), "n": b"1"} for sound in sounds]
    samples = [(str(n), one) for n, one in enumerate([*members, {"n": b"1"}])]
    write_folder(tmp_path / "set", [samples])
    for channels, shape, lengths in (
        (1, (3, 320, 1), [160, 320, 0]),
        (None, (3, 320, 2), [[160, 2], [320, 1], [0, 0]]),
    ):
        field = AudioField("wav", RATE_HZ, 1, channels=channels)
        source = Source("s", tmp_path / "set", {"sound": field}, shuffle=False)
        assembly = Assembly(source, 3)
        for row in range(3):
            assembly.read(row, source.locate(row))
        batch = assembly.finish()
        assert batch.fields["sound"].values.shape == shape
        assert batch.fields["sound"].lengths.tolist() == lengths
        assert "sound.present" not in batch.fields


LONG_OGG = encoded(np.random.default_rng(0).uniform(-0.5, 0.5, (5 * RATE_HZ, 1)), "OGG")
WAV, FLAC, MP3, OGG = (encoded(tone(), kind) for kind in ("WAV", "FLAC", "MP3", "OGG"))


@pytest.mark.parametrize(
    ("member", "message"),
    [
        *[(whole[: int(share * len(whole))], "must be") for whole in (WAV, FLAC, MP3, OGG)
          for share in (0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99)],
        (WAV[:-2], "must be a whole file, but is cut short"),
        (WAV[:9000], "must be a whole file, but is cut short"),
        (FLAC[: len(FLAC) // 2], "must be sound, but does not decode .*lost sync"),
        (MP3[: len(MP3) // 2], "must be a whole file, but is cut short"),
        (LONG_OGG[: len(LONG_OGG) * 3 // 4], "must be a whole file, but is cut short"),
        (b"not a sound", "must be sound, but does not decode .*not recognised"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 999, "must be sound, but does not decode"),
        (FLAC[:2000] + b"\xff" * 2000 + FLAC[4000:], "must be"),
        (encoded(tone(0)), "must be sound, but is empty"),
        (encoded(tone(), "AIFF"), "must be one of WAV, .*, but is AIFF"),
        (encoded(np.array([0.1, np.nan]), subtype="FLOAT"), "must be finite sound"),
        (encoded(np.array([0.1, np.inf]), subtype="FLOAT"), "must be finite sound"),
        (encoded(np.zeros((9, 65))), "must have at most 64 channels .* but claims 65"),
        (WAV[:24] + struct.pack("<I", 2**31 - 1) + WAV[28:], "claims 1 at 2147483647 Hz"),
        (WAV[:24] + struct.pack("<I", 0) + WAV[28:], "must"),
        (FLAC[:21] + bytes([FLAC[21] & 0xF0]) + b"\0" * 4 + FLAC[26:], "must say how long it is"),
    ],
)  # fmt: skip
def test_what_is_no_sound_or_not_whole_is_bad(member: bytes, message: str) -> None:
    with pytest.raises(UndecodableError, match=message):
        AudioField("wav", RATE_HZ, max_s=60).decode(member, "wav")


def test_a_wav_from_a_pipe_may_claim_that_its_length_is_unknown() -> None:
    place = WAV.index(b"data") + 4
    streamed = WAV[:place] + b"\xff\xff\xff\xff" + WAV[place + 4 :]
    field = AudioField("wav", RATE_HZ, max_s=5)
    assert np.array_equal(field.decode(streamed, "wav"), field.decode(WAV, "wav"))


@pytest.mark.parametrize(
    ("archive", "kind"),
    [
        ("fsdd/recordings.zip", "wav"),
        ("emodb/flac.zip", "flac"),
        ("esc10/audio.zip", "ogg"),
    ],
)
def test_real_recordings_last_as_long_as_their_tables_say(
    test_data: Path, archive: str, kind: str
) -> None:
    field = AudioField(kind, RATE_HZ, max_s=20)
    table = (test_data / archive).parent / "metadata.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()][::40][:5]
    with zipfile.ZipFile(test_data / archive) as recordings:
        for row in rows:
            sound = field.decode(recordings.read(row["file"]), kind)
            assert 0.001 < np.abs(sound).max() < 1.5
            if "duration" in row:
                assert len(sound) == pytest.approx(row["duration"] * RATE_HZ, abs=20)


def test_a_field_travels_to_workers() -> None:
    field = pickle.loads(pickle.dumps(AudioField("wav", RATE_HZ, max_s=1)))
    assert len(field.decode(WAV, "wav")) == RATE_HZ


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, *arguments: object, **more: object) -> object:
        if name == "soundfile":
            raise ImportError(name)
        return importing(name, *arguments, **more)

    importing = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", find)
    with pytest.raises(SslScaleError, match=r"pip install 'ssl-scale\[audio\]'"):
        AudioField("wav", RATE_HZ, max_s=1)


def test_less_than_one_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="max_s must be at least one sample, but is 1e-05"):
        AudioField("wav", RATE_HZ, max_s=1e-5)
