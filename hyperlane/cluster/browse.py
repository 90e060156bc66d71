"""Listening for workers on mDNS."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio
from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceBrowser, ServiceInfo, ServiceListener, Zeroconf

from hyperlane import PROTOCOL_VERSION
from hyperlane.artifacts import Rejected
from hyperlane.cluster.announce import SERVICE_TYPE, Entry, from_service
from hyperlane.cluster.interfaces import multicast_interfaces
from hyperlane.errors import ClusterError

RESOLVE_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Heard:
    """Entries in the order of their names, and those that make no sense."""

    entries: tuple[Entry, ...]
    rejected: tuple[Rejected, ...]


async def browse(
    cluster: str, window_s: float, *, interface: str | None, expected: int | None, hosts: Sequence[str] = ()
) -> Heard:
    """Listen for `window_s` seconds, or until `expected` workers of `cluster` are known.

    `hosts` are the addresses on which the workers listen, if known: on loopback alone, mDNS stays there too.
    """
    try:
        zeroconf = await trio.to_thread.run_sync(
            functools.partial(Zeroconf, interfaces=multicast_interfaces(interface, hosts), ip_version=IPVersion.V4Only)
        )
    except OSError as error:
        raise ClusterError(f"cannot listen to mDNS on {interface or 'any interface'}: {error}") from error
    entries: dict[str, Entry] = {}
    rejected: dict[str, Rejected] = {}
    try:
        with trio.move_on_after(window_s):
            await _collect(zeroconf, cluster, expected, entries, rejected)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(zeroconf.close)
    ordered = sorted(entries.values(), key=lambda entry: entry.instance)
    return Heard(tuple(ordered), tuple(rejected.values()))


async def _collect(
    zeroconf: Zeroconf,
    cluster: str,
    expected: int | None,
    entries: dict[str, Entry],
    rejected: dict[str, Rejected],
) -> None:
    names_in, names_out = trio.open_memory_channel[str](math.inf)
    token = trio.lowlevel.current_trio_token()

    async def resolve(instance: str) -> None:
        service = ServiceInfo(SERVICE_TYPE, instance)
        try:
            answered = await trio.to_thread.run_sync(
                service.request, zeroconf, RESOLVE_TIMEOUT_S * 1000, abandon_on_cancel=True
            )
            hosts = service.parsed_addresses(IPVersion.V4Only)
            if not answered or not hosts:
                raise ValueError(f"its mDNS entry gave no address in {RESOLVE_TIMEOUT_S:g} s")
            entries[instance] = from_service(instance, service.properties, hosts)
            rejected.pop(instance, None)
        except (ValueError, ZeroconfError) as error:
            label = instance.removesuffix("." + SERVICE_TYPE)
            rejected[instance] = Rejected(name=label.partition("@")[0], address="", reason=str(error))
        fitting = [e for e in entries.values() if (e.cluster, e.version) == (cluster, PROTOCOL_VERSION)]
        if expected is not None and len(fitting) >= expected:
            nursery.cancel_scope.cancel()

    browser = ServiceBrowser(
        zeroconf,
        SERVICE_TYPE,
        listener=_Listener(lambda name: token.run_sync_soon(names_in.send_nowait, name)),
    )
    try:
        async with trio.open_nursery() as nursery:
            async for name in names_out:
                nursery.start_soon(resolve, name)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(browser.cancel)


class _Listener(ServiceListener):
    """Passes on every name that appears or changes."""

    def __init__(self, heard: Callable[[str], object]) -> None:
        self._heard = heard

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self._heard(name)

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self._heard(name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """A worker that left will not answer the probe either."""
