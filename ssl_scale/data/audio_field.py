"""Sound: from a file's bytes to samples at one rate.

libsndfile decodes WAV, FLAC, Ogg (Vorbis, Opus) and MP3; which it is, the bytes say.
"""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ssl_scale.data.decoding import FieldDecoder, UndecodableError, pad
from ssl_scale.data.seeds import Whole
from ssl_scale.errors import SslScaleError
from ssl_scale.part import Count, Positive
from ssl_scale.types import Ragged

_FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")
_MOST_CHANNELS, _HIGHEST_RATE_HZ = 64, 768_000
# A count of more, which only a header that lies can claim, would not fit its column.
_MOST_SAMPLES = 2**31
# A WAV's header may claim more than there is: a file cut short, or one from a pipe, whose writer
# put the largest length that there is.
_CLAIM = re.compile(r"^ *data : (\d+) \(should be \d+\)", re.MULTILINE)
_UNKNOWN_LENGTH, _UNKNOWN_FRAMES = 0x7FFF0000, 2**63 - 1
_OGG_PAGE, _LAST_PAGE = b"OggS", 4


class AudioField(FieldDecoder):
    """Sound, as samples in about [-1, 1].

    Args:
        extension: of the members.
        sample_rate_hz: of what is given; sound of another rate is resampled.
        max_s: longer sound is cut there.
        channels: how many. One is the mean of all that a file has; of others a file must have as
            many. Null keeps what each file has, and the batch is ragged in channels too.
        resample: false makes sound of another rate bad, rather than resampling it.

    Raises:
        SslScaleError: `soundfile` is not installed.
    """

    def __init__(
        self,
        extension: str | Sequence[str],
        sample_rate_hz: Count,
        max_s: Positive,
        channels: Count | None = 1,
        resample: bool = True,
    ) -> None:
        super().__init__(extension)
        self.sample_rate_hz, self.max_s = sample_rate_hz, max_s
        self.channels, self.resample = channels, resample
        self.max_samples = math.floor(max_s * sample_rate_hz)
        if not self.max_samples:
            raise ValueError(f"max_s must be at least one sample, but is {max_s}")
        _soundfile()

    def decode(self, member: bytes, extension: str) -> np.ndarray:
        """``[samples, channels]`` float32."""
        with _opened(member) as file:
            sound, rate_hz = self._read(file, member), file.samplerate
        if self.channels == 1 and sound.shape[1] > 1:
            sound = sound.mean(1, keepdims=True, dtype=np.float32)
        if not np.isfinite(sound).all():
            raise UndecodableError("must be finite sound, but has NaN or infinity")
        return self._at_our_rate(sound, rate_hz)[: self.max_samples]

    @property
    def length_name(self) -> str:
        """Sounds are counted in samples of our rate; cutting comes later."""
        return f"{'+'.join(self.extensions)}-{self.sample_rate_hz}hz"

    @property
    def length_options(self) -> str:
        """The rate."""
        return f"--extension {' '.join(self.extensions)} --sample-rate-hz {self.sample_rate_hz}"

    def count(self, member: bytes, extension: str) -> int:
        """Samples of the whole sound, as its header claims."""
        with _opened(member) as file:
            self._check(file, member)
            count = -(-file.frames * self.sample_rate_hz // file.samplerate)
            return int(min(count, _MOST_SAMPLES))

    def lengths_of(self, counts: Whole) -> Whole:
        """Samples after cutting."""
        return np.minimum(counts, self.max_samples)

    def missing(self) -> np.ndarray:
        """No samples."""
        return np.zeros((0, self.channels or 0), np.float32)

    def collate(self, values: Sequence[np.ndarray]) -> Ragged:
        """``[batch, samples, channels]``, padded with zeros to the longest of the batch."""
        return pad(values, 1 if self.channels else 2)

    def _check(self, file: Any, member: bytes) -> None:
        if file.format not in _FORMATS:
            formats = ", ".join(_FORMATS)
            raise UndecodableError(f"must be one of {formats}, but is {file.format}")
        if not 0 < file.samplerate <= _HIGHEST_RATE_HZ or file.channels > _MOST_CHANNELS:
            raise UndecodableError(
                f"must have at most {_MOST_CHANNELS} channels at {_HIGHEST_RATE_HZ} Hz, but claims "
                f"{file.channels} at {file.samplerate} Hz"
            )
        if file.samplerate != self.sample_rate_hz and not self.resample:
            raise UndecodableError(
                f"must have {self.sample_rate_hz} Hz, but has {file.samplerate} Hz; allow "
                "`resample`, or name that rate"
            )
        if self.channels not in (None, 1, file.channels):
            raise UndecodableError(f"must have {self.channels} channels, but has {file.channels}")
        if _is_cut_short(file, member):
            raise UndecodableError("must be a whole file, but is cut short")
        if not file.frames:
            raise UndecodableError("must be sound, but is empty")
        if file.frames == _UNKNOWN_FRAMES:  # soundfile cannot read it to its end
            raise UndecodableError("must say how long it is, but does not; encode it to a file")

    def _read(self, file: Any, member: bytes) -> np.ndarray:
        self._check(file, member)
        wanted = min(file.frames, math.ceil(self.max_s * file.samplerate))
        sound: np.ndarray = file.read(wanted, dtype="float32", always_2d=True)
        if len(sound) < wanted:
            raise UndecodableError("must be a whole file, but is cut short")
        return sound

    def _at_our_rate(self, sound: np.ndarray, rate_hz: int) -> np.ndarray:
        if rate_hz == self.sample_rate_hz:
            return sound
        from scipy.signal import resample_poly

        factor = math.gcd(rate_hz, self.sample_rate_hz)
        up, down = self.sample_rate_hz // factor, rate_hz // factor
        resampled: np.ndarray = resample_poly(sound, up, down).astype(np.float32, copy=False)
        return resampled


@contextmanager
def _opened(member: bytes) -> Iterator[Any]:
    library = _soundfile()
    try:
        with library.SoundFile(io.BytesIO(member)) as file:
            yield file
    except library.SoundFileError as error:
        # Before its words stands the address of our buffer.
        reason = getattr(error, "error_string", error)
        raise UndecodableError(f"must be sound, but does not decode ({reason})") from error


def _is_cut_short(file: Any, member: bytes) -> bool:
    if file.format == "OGG":
        flags = member[member.rfind(_OGG_PAGE) + 5 :][:1]
        return not flags or not flags[0] & _LAST_PAGE
    claim = _CLAIM.search(file.extra_info)
    return claim is not None and int(claim[1]) < _UNKNOWN_LENGTH


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # the latter where its libsndfile is missing
        raise SslScaleError(
            "sound needs the package soundfile; install it with `pip install 'ssl-scale[audio]'`"
        ) from error
    return soundfile
