"""Compressed shards: unpacked once, as a whole, since nothing in them can be reached by offset.

``NAME.tar.gz``, ``NAME.tgz`` and ``NAME.tar.zst`` become ``NAME.tar`` beside them: the archive as
it was packed, whose members are never unpacked. To reach a sample in a compressed stream, all that
lies before it has to be decompressed, in every epoch and after every resume; disk is cheaper.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from ssl_scale.errors import DataError

SUFFIXES = (".tar.gz", ".tgz", ".tar.zst")
# Headers and padding of tiny members shrink to a hundredth; what grows more is no archive of data.
_MOST_TIMES = 1000
_CHUNK = 1 << 20


def packed_suffix(name: str) -> str | None:
    """The suffix of a compressed archive's name; None for any other name."""
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def unpack(path: Path, target: Path) -> None:
    """Write the archive inside a compressed one.

    Raises:
        DataError: it is damaged or cut off, or grows beyond all measure.
    """
    most = _MOST_TIMES * path.stat().st_size
    written = 0
    with path.open("rb") as packed, target.open("wb") as plain:
        try:
            with _reading(path, packed) as stream:
                while chunk := stream.read(_CHUNK):
                    written += len(chunk)
                    if written > most:
                        raise DataError(
                            f"{path}: an archive must unpack to at most {_MOST_TIMES} times its "
                            f"size, but passes {most} bytes; is it meant to fill the disk?"
                        )
                    plain.write(chunk)
        except (EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowException) as error:
            raise _damaged(path, error) from error
        except OSError as error:
            if error.errno is None:  # Arrow's way to say that what it reads is damaged
                raise _damaged(path, error) from error
            raise


@contextmanager
def _reading(path: Path, packed: IO[bytes]) -> Iterator[Any]:
    if path.name.endswith(".zst"):
        with pa.CompressedInputStream(packed, "zstd") as stream:
            yield stream
    else:
        with gzip.GzipFile(fileobj=packed) as file:
            yield file


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: must be a whole compressed archive, but does not unpack ({error}); copy it again"
    )
