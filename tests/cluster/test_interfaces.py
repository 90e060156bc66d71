"""Interfaces by name and by address."""

import pytest
from zeroconf import InterfaceChoice

from hyperlane.cluster.interfaces import addresses_of, lan_addresses, multicast_interfaces
from hyperlane.errors import ConfigError


def test_interface_is_known_by_its_name_and_its_address() -> None:
    assert addresses_of("lo") == ["127.0.0.1"]
    assert addresses_of("127.0.0.1") == ["127.0.0.1"]


def test_unknown_interface_lists_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no interface 'nope0' with an IPv4 address; take one of .*\blo\b"):
        addresses_of("nope0")


def test_loopback_is_no_lan_address() -> None:
    assert "127.0.0.1" not in lan_addresses()


def test_mdns_stays_where_the_workers_are() -> None:
    assert multicast_interfaces("lo") == ["127.0.0.1"]
    assert multicast_interfaces(None, ("127.0.0.1", "127.0.0.2")) == ["127.0.0.1"]
    assert multicast_interfaces(None, ("127.0.0.1", "10.0.0.2")) is InterfaceChoice.All
    assert multicast_interfaces(None) is InterfaceChoice.All
