"""Whether shards still hold the bytes that they were indexed with: size and checksum of each."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from ssl_scale.data.index import Dataset, hash_file
from ssl_scale.data.index_file import Shard
from ssl_scale.errors import DataError


def verify_shards(dataset: Dataset, threads: int, progress: Callable[[int], None]) -> None:
    """Read all shards and compare.

    Args:
        dataset: whose.
        threads: shards read at once; hashing leaves Python's lock.
        progress: told of the bytes of each shard.

    Raises:
        DataError: naming all shards that differ, and how.
    """
    faults = []
    shards = iter(dataset.shards)
    with ThreadPoolExecutor(threads) as pool:
        # A few at a time: a data set may have a million.
        while some := list(islice(shards, 4 * threads)):
            checks = [pool.submit(_fault, dataset.folder, shard) for shard in some]
            for shard, check in zip(some, checks, strict=True):
                if fault := check.result():
                    faults.append(f"{shard.name} {fault}")
                progress(shard.bytes)
    if faults:
        raise DataError(
            f"{dataset.folder}: {len(faults)} of {len(dataset.shards)} shards must be as they were "
            f"indexed, but are not: {'; '.join(faults)}; restore them, or run `ssl-data index "
            f"{dataset.folder}` if the changes were meant"
        )


def _fault(folder: Path, shard: Shard) -> str | None:
    path = folder / shard.name
    try:
        size = path.stat().st_size
        if size != shard.bytes:
            return f"has {size} bytes instead of {shard.bytes}"
        return None if hash_file(path) == shard.xxh3 else "has other bytes of the same number"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
