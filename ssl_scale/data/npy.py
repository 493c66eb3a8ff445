"""Reading ``.npy`` and ``.npz`` of strangers: nothing is unpickled, and no size is believed."""

import io
import math
import zipfile
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from ssl_scale.data.undecodable import UndecodableError

# Told the shape before any number is read; raises `UndecodableError` if it is not wanted.
Check: TypeAlias = Callable[[tuple[int, ...]], None]
_MOST_BYTES = 2**31 - 1
_NUMBERS = "biuf"


def read_npz(member: bytes, entry: str, check: Check) -> np.ndarray:
    """Read one array of an archive.

    Raises:
        UndecodableError: it is no archive, or has no such array.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(member)) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if entry not in names:
                raise UndecodableError(
                    f"must have the array {entry!r}, but has {', '.join(names)[:200] or 'none'}"
                )
            about = archive.infolist()[names.index(entry)]
            with archive.open(about) as file:
                assert isinstance(file, io.BufferedIOBase)
                return read_npy(file, about.file_size, check)
    except (UndecodableError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - zipfile and its inflaters raise all sorts of things
        raise UndecodableError(f"must be an .npz of arrays, but is not ({error})") from error


def read_npy(file: io.BufferedIOBase, size: int, check: Check) -> np.ndarray:
    """Read an array from a file of `size` bytes.

    Raises:
        UndecodableError: it is no array of numbers, or lies about its size.
    """
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, by_column, dtype = read_header(file)
        expected = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise ValueError(
                "it holds Python objects, and reading those runs whatever code they hold; store "
                "numbers, or the rest as json"
            )
        # Only an array without any numbers can be longer than its bytes.
        is_true = expected == size - file.tell() and max(shape, default=0) <= size <= _MOST_BYTES
        if dtype.kind not in _NUMBERS or not is_true:
            raise ValueError(f"a header of {shape} {dtype} does not fit {size} bytes of numbers")
        check(shape)
        values = np.empty(math.prod(shape), dtype)
        if file.readinto(values.view(np.uint8).data) != expected:
            raise ValueError("it is cut short")
        order: Literal["F", "C"] = "F" if by_column else "C"
        return values.reshape(shape, order=order)
    except (UndecodableError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - numpy reads the header as Python source
        raise UndecodableError(f"must be a .npy array of numbers, but is not ({error})") from error
