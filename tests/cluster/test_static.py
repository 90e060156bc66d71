"""cluster=static."""

from pathlib import Path

import pytest

from hyperlane.cluster.source import Surroundings
from hyperlane.cluster.static import Static, parse_addresses
from hyperlane.errors import ClusterError, ConfigError
from tests.cluster.conftest import Start

SURROUNDINGS = Surroundings(store_root=Path("unused"))


async def test_finds_every_address(start_worker: Start) -> None:
    ports = [start_worker("b"), start_worker("a", cluster="any")]
    async with Static(addresses=[f"127.0.0.1:{port}" for port in ports]).open(SURROUNDINGS) as finder:
        cluster = await finder.find()
    assert [one.name for one in cluster.workers] == ["a", "b"]
    assert [one.control_address for one in cluster.workers] == [f"127.0.0.1:{port}" for port in ports[::-1]]


async def test_two_addresses_with_one_name_are_refused(start_worker: Start) -> None:
    addresses = [f"127.0.0.1:{start_worker('w')}" for _ in range(2)]
    async with Static(addresses=addresses).open(SURROUNDINGS) as finder:
        with pytest.raises(ClusterError, match="are both called w; start one of them with another --name"):
            await finder.find()


async def test_address_without_a_worker_is_refused(start_worker: Start) -> None:
    port = start_worker("w")
    async with Static(addresses=[f"127.0.0.1:{port}", f"127.0.0.9:{port}"]).open(SURROUNDINGS) as finder:
        with pytest.raises(
            ClusterError, match=f"1 of cluster.addresses cannot be used: .*127.0.0.9:{port} cannot be reached"
        ):
            await finder.find()


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        ([], r"cluster.addresses is empty; give cluster.addresses=\[host:port,...\]"),
        (["a:1", "b:2", "a:1"], "names a:1 twice"),
        (["host"], "'host' is no host:port"),
        (["host:"], "'host:' is no host:port"),
        ([":80"], "':80' is no host:port"),
        (["host:65536"], "'host:65536' is no host:port"),
    ],
)
def test_malformed_addresses_are_refused(addresses: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_addresses(addresses)
