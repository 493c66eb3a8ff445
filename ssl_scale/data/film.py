"""A film's packets in memory: any of its frames, decoded from the key frame before it.

Only containers that hold their own pictures are opened: a playlist would have other files, and
addresses, opened on this machine.
"""

import bisect
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from PIL import Image

from ssl_scale.data.pictures import check_pixels
from ssl_scale.data.undecodable import UndecodableError
from ssl_scale.errors import SslScaleError

_OPTIONS = {
    "format_whitelist": "mov,matroska,webm,avi,mpeg,mpegts,gif",
    "protocol_whitelist": "none",
}
_MOST_FRAMES = 1_000_000
# Durations are rounded, and not every container says how long the last frame is shown.
_LEAST_SHARE, _SLACK_S = 0.95, 0.1


@contextmanager
def open_film(member: bytes, max_pixels: int) -> Iterator["Film"]:
    """A film of a file; whatever goes wrong inside is the sample's fault.

    Raises:
        UndecodableError: there is no film, only the beginning of one, or it does not decode.
        SslScaleError: `av` is not installed.
    """
    av = import_av()
    try:
        file = io.BytesIO(member)
        with av.open(file, options=_OPTIONS, metadata_errors="replace") as container:
            yield Film(container, max_pixels)
    except UndecodableError:
        raise
    except Exception as error:  # noqa: BLE001 - also what is odd in a file's tables
        # FFmpeg's own is for memory that the file claimed.
        if isinstance(error, MemoryError) and not isinstance(error, av.FFmpegError):
            raise
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UndecodableError(f"must be a film, but does not decode ({reason})") from error


def import_av() -> Any:
    """The package PyAV.

    Raises:
        SslScaleError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise SslScaleError(
            "films need the package av; install it with `pip install 'ssl-scale[video]'`"
        ) from error
    return av


class Film:
    """The first film of a container.

    Args:
        container: as PyAV opens it.
        max_pixels: a film whose frames claim more is bad.
    """

    def __init__(self, container: Any, max_pixels: int) -> None:
        if not container.streams.video:
            raise UndecodableError("must be a film, but has no pictures")
        stream = container.streams.video[0]
        self._decoder = stream.codec_context
        check_pixels(self._decoder.width, self._decoder.height, max_pixels)
        self._decoder.thread_count = 1  # each worker has a core
        # Frames may be larger than the container says.
        self._decoder.options = {"max_pixels": str(max_pixels)}
        self._packets, self._fed, end_s = list[Any](), 0, 0.0
        for packet in container.demux():
            if packet.size and packet.stream.index == stream.index:
                self._packets.append(packet)
            if len(self._packets) > _MOST_FRAMES:
                raise UndecodableError(f"must have at most {_MOST_FRAMES} frames, but has more")
            if packet.size:
                time = packet.dts if packet.pts is None else packet.pts
                end_s = max(end_s, float(((time or 0) + packet.duration) * packet.time_base))
        lasts_s = end_s - (container.start_time or 0) / 1e6
        is_short = lasts_s < _LEAST_SHARE * (container.duration or 0) / 1e6 - _SLACK_S
        if not self._packets or len(self._packets) < stream.frames or is_short:
            raise UndecodableError("must be a whole film, but is cut short")
        # Packets stand in the order of decoding, not in that of showing. AVI does not say when they
        # are shown (what PyAV says then is a guess): frames are counted from the first one.
        is_known = all(packet.pts is not None for packet in self._packets)
        self._is_timed = is_known and container.format.name != "avi"
        if self._is_timed:
            self._times = sorted(packet.pts for packet in self._packets)
            keys = [(one.pts, n) for n, one in enumerate(self._packets) if one.is_keyframe]
            self._keys = sorted(keys)
        else:
            self._times, self._keys = list(range(len(self._packets))), []

    def __len__(self) -> int:
        """How many frames there are."""
        return len(self._packets)

    def frames(self, places: Sequence[int]) -> Iterator[Image.Image]:
        """The frames at places that never descend, upright.

        Instead of one that is not meant to be shown, comes the next that is.
        """
        frames, shown, frame = self._decoded(0), -1, None
        for time in [self._times[place] for place in places]:
            key = self._key_before(time)
            if key > self._fed:
                frames, frame = self._decoded(key), None
            while frame is None or shown < time:
                following = next(frames, None)
                if following is None:
                    break
                shown, frame = following
            if frame is None:
                raise UndecodableError("must be a film, but shows no frame")
            image = frame.to_image()
            yield image.rotate(frame.rotation, expand=True) if frame.rotation else image

    def _key_before(self, time: int) -> int:
        found = bisect.bisect(self._keys, (time, len(self._packets))) - 1
        return self._keys[found][1] if found >= 0 else 0

    def _decoded(self, start: int) -> Iterator[tuple[int, Any]]:
        """Frames from a packet on, each with when it is shown."""
        for number, frame in enumerate(self._decoded_untimed(start)):
            yield (frame.pts or 0) if self._is_timed else number, frame

    def _decoded_untimed(self, start: int) -> Iterator[Any]:
        self._decoder.flush_buffers()
        for place in range(start, len(self._packets)):
            self._fed = place
            yield from self._decoder.decode(self._packets[place])
        yield from self._decoder.decode(None)
