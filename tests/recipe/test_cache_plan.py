"""The cache that a recipe asks for, and what reading an address will cost."""

from pathlib import Path

import pytest

from ssl_scale.data.index import Dataset, read_dataset
from ssl_scale.data.node_cache import NodeCache
from ssl_scale.errors import RecipeError
from ssl_scale.recipe.cache_plan import CachePlan
from ssl_scale.recipe.remote_cost import remote_costs
from tests.data.http_server import serving
from tests.data.shards import digit_samples, write_folder


@pytest.mark.parametrize(
    ("said", "limit"),
    [("100GB", 10**11), ("1.5 TB", 15 * 10**11), ("2GiB", 2 * 1024**3), ("300KB", 300_000)],
)
def test_sizes_are_said_with_a_unit(said: str, limit: int) -> None:
    assert CachePlan(max_bytes=said).limit == limit


@pytest.mark.parametrize("said", ["100", "GB", "-1GB", "1EB", "0GB", "1GB or so"])
def test_what_is_no_size_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="max_bytes must be"):
        CachePlan(max_bytes=said)


def test_the_folder_may_be_a_variable_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_DISK", str(tmp_path))
    assert CachePlan(folder="$NODE_DISK/shards").cache().folder == tmp_path / "shards"


def test_a_variable_that_is_not_set_is_refused_rather_than_made_a_folder() -> None:
    with pytest.raises(RecipeError, match=r"\$NO_SUCH_DISK/shards"):
        CachePlan(folder="$NO_SUCH_DISK/shards").cache()


def opened(folder: Path, address: str, max_bytes: int) -> Dataset:
    return read_dataset(address, NodeCache(folder / f"cache-{max_bytes}", max_bytes))


def test_the_cost_of_an_address_is_told_and_a_cache_too_small_for_all_streams(
    tmp_path: Path,
) -> None:
    write_folder(tmp_path / "data", [digit_samples(20)[n : n + 10] for n in (0, 10)])
    local = read_dataset(tmp_path / "data")
    size = local.shards.total_bytes
    assert remote_costs([local], streams=2) == []
    with serving(tmp_path / "data") as server:
        large = opened(tmp_path, server.url, 10**9)
        small = opened(tmp_path, server.url, size - 1)
        first, second = remote_costs([large, large], streams=1)
        assert server.url in first
        assert "2 shards" in first
        assert first.endswith("fetched once")
        assert second.endswith("at most 1 GB")
        told = remote_costs([small], streams=2)
    assert "fetched again in every epoch" in told[0]
    assert told[2].startswith("warning: 2 streams")
