"""How evenly ranks are loaded: from the order itself, at the scale that it is meant for."""

import numpy as np
import pytest

from ssl_scale.data.order import Order
from ssl_scale.data.seeds import Whole, combine

SHARDS, RANKS = 1_000_000, 4096


def sample_bytes(shard: Whole, row: Whole, mixed: bool) -> Whole:
    """Sizes of web pictures, half their mean apart.

    Where shards are not mixed, as when a crawl was packed site by site, their means are up to half
    the mean away from it too.
    """
    kinds = [combine(7, shard), combine(8, shard, row)]
    uniform = [(bits >> np.uint64(11)).astype(np.float64) / 2.0**53 + 2.0**-54 for bits in kinds]
    of_shard = 1.0 if mixed else 0.5 + uniform[0]
    # A logistic variable stands in for the normal one: its tails are heavier.
    spread = 0.47 * np.sqrt(3) / np.pi * np.log(uniform[1] / (1 - uniform[1]))
    return (100_000 * of_shard * np.exp(spread)).astype(np.int64)


def spread(order: Order, mixed: bool) -> float:
    """Largest deviation from the mean, among one rank of each stream.

    Where ranks are a multiple of the streams a rank reads in one stream alone, so ranks differ by
    what streams differ, and a little by chance within it.
    """
    read = []
    for rank in range(order.streams):
        total = 0
        for part in np.array_split(np.arange(rank, len(order), RANKS), 8):
            place = order.locate(part)
            total += int(sample_bytes(place.shard, place.row, mixed).sum())
        read.append(total)
    return float(np.abs(np.array(read) / np.mean(read) - 1).max())


@pytest.mark.slow
@pytest.mark.parametrize("mixed", [True, False])
def test_4096_ranks_read_equal_bytes_an_epoch_within_one_percent(mixed: bool) -> None:
    sizes = np.random.default_rng(3).integers(900, 1100, SHARDS).astype(np.uint32)
    found = spread(Order(sizes, seed=11), mixed)
    print(
        f"{RANKS} ranks, {SHARDS:,} shards, mixed {mixed}: within {100 * found:.2f} % of the mean"
    )
    assert found < 0.01
