"""What reading data sets at an address will cost each node: told before it is paid."""

from collections.abc import Iterable

from ssl_scale.data.index import Dataset

# A stream reads in one shard, is about to enter the next, and leaves one behind.
_SHARDS_PER_STREAM = 2


def remote_costs(datasets: Iterable[Dataset], streams: int) -> list[str]:
    """A line for each data set at an address, and one for what is too little.

    Args:
        datasets: those of a recipe; the same one may come twice.
        streams: `DataPlan.streams`.
    """
    remote = {each.address: each for each in datasets if each.address is not None}
    if not remote:
        return []
    cache = next(each.cache for each in remote.values())
    assert cache is not None, "what is remote has a cache"
    sizes = [each.shards.total_bytes for each in remote.values()]
    comes = (
        "fetched once" if sum(sizes) <= cache.max_bytes else "fetched again in every epoch, in part"
    )
    lines = [
        f"remote: {address}: {len(each.shards):,} shards, {_gb(size)}, {comes}"
        for (address, each), size in zip(remote.items(), sizes, strict=True)
    ]
    lines.append(f"cache of each node: {cache.folder}, at most {_gb(cache.max_bytes)}")
    at_once = sum(
        min(size, _SHARDS_PER_STREAM * streams * size // len(each.shards))
        for each, size in zip(remote.values(), sizes, strict=True)
    )
    if at_once > cache.max_bytes:
        lines.append(
            f"warning: {streams} streams read about {_gb(at_once)} of shards at once; where a node "
            "reads all streams, shards are removed before they are read to their end and fetched "
            "again; raise data.cache.max_bytes, or lower data.streams"
        )
    return lines


def _gb(size: int) -> str:
    return f"{size / 1e9:,.3g} GB" if size < 1e12 else f"{size / 1e9:,.0f} GB"
