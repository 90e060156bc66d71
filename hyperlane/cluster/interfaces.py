"""This machine's IPv4 addresses, by interface."""

import ipaddress
import socket
from collections.abc import Sequence

import psutil
from zeroconf import InterfaceChoice

from hyperlane.errors import ConfigError

LOOPBACK = "127.0.0.1"


def addresses_of(interface: str) -> list[str]:
    """The IPv4 addresses of an interface given by its name ("eth0"), or the one address given itself."""
    by_name = _by_name()
    if interface in by_name:
        return by_name[interface]
    if any(interface in hosts for hosts in by_name.values()):
        return [interface]
    names = ", ".join(sorted(by_name))
    raise ConfigError(f"there is no interface {interface!r} with an IPv4 address; take one of {names}")


def is_loopback(address: str) -> bool:
    """Whether "host:port" stays on this machine; a host name counts by what it resolves to."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in found)


def lan_addresses() -> list[str]:
    """Every IPv4 address by which other machines may reach this one."""
    found = (host for hosts in _by_name().values() for host in hosts)
    return [host for host in found if not ipaddress.ip_address(host).is_loopback]


def multicast_interfaces(interface: str | None, hosts: Sequence[str] = ()) -> Sequence[str] | InterfaceChoice:
    """Where mDNS speaks: on the interface asked for, on loopback for a worker there, else everywhere."""
    if interface is not None:
        return addresses_of(interface)
    if hosts and all(ipaddress.ip_address(host).is_loopback for host in hosts):
        return [LOOPBACK]
    return InterfaceChoice.All


def _by_name() -> dict[str, list[str]]:
    found = {
        name: [entry.address for entry in entries if entry.family == socket.AF_INET]
        for name, entries in psutil.net_if_addrs().items()
    }
    return {name: hosts for name, hosts in found.items() if hosts}
