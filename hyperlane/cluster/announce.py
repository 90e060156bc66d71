"""A worker's mDNS entry: `<name>@<cluster>._hyperlane._tcp.local.` and the records that describe it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, NonUniqueNameException, ServiceInfo, Zeroconf
from zeroconf._dns import DNSText

from hyperlane.cluster.interfaces import multicast_interfaces
from hyperlane.errors import ClusterError, ConfigError

DNS_TYPE_TXT = 16
DNS_CLASS_IN = 1
SERVICE_TYPE = "_hyperlane._tcp.local."
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,29}")
NAMES_TRIED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a worker announces. `identity` is what its data port greets with."""

    name: str
    cluster: str
    identity: str
    version: int
    device: str
    memory_total_bytes: int
    memory_free_bytes: int
    control_port: int
    data_port: int
    hosts: tuple[str, ...]

    @property
    def instance(self) -> str:
        return f"{self.name}@{self.cluster}.{SERVICE_TYPE}"


class Announcement:
    """Registers `entry` on construction; `entry.name` is the name that was free. Blocks: call it in a thread.

    Raises ConfigError for a name that cannot be announced, ClusterError where multicast does not work.
    """

    def __init__(self, entry: Entry, interface: str | None) -> None:
        for word in (entry.name, entry.cluster):
            check_name(word)
        try:
            self._zeroconf = Zeroconf(
                interfaces=multicast_interfaces(interface, entry.hosts), ip_version=IPVersion.V4Only
            )
        except OSError as error:
            raise ClusterError(f"cannot announce by mDNS on {interface or 'any interface'}: {error}") from error
        try:
            self.entry = self._register(entry)
        except BaseException:
            self._zeroconf.close()
            raise

    def update_free(self, memory_free_bytes: int) -> None:
        """Announce how much memory is free now."""
        self.entry = replace(self.entry, memory_free_bytes=memory_free_bytes)
        self._zeroconf.update_service(to_service(self.entry))

    def close(self) -> None:
        """Say goodbye, so that nobody keeps this worker in mind."""
        self._zeroconf.unregister_all_services()
        self._zeroconf.close()

    def _register(self, entry: Entry) -> Entry:
        for number in range(1, NAMES_TRIED):
            candidate = entry if number == 1 else replace(entry, name=f"{entry.name}-{number}")
            service = to_service(candidate)
            try:
                self._zeroconf.register_service(service)
                if not self._lost_to_another(candidate):
                    return candidate
                self._zeroconf.unregister_service(service)
            except NonUniqueNameException:
                continue
            except (ZeroconfError, OSError) as error:
                raise ClusterError(f"cannot announce {entry.name} by mDNS: {error}") from error
        raise ClusterError(f"{NAMES_TRIED} workers are called {entry.name}; give this one another --name")

    def _lost_to_another(self, entry: Entry) -> bool:
        """Whether another took the name in the same instant, unseen by either's probes, and may keep it."""
        texts = self._zeroconf.cache.get_all_by_details(entry.instance, DNS_TYPE_TXT, DNS_CLASS_IN)
        rivals = [
            ServiceInfo(SERVICE_TYPE, entry.instance, properties=text.text)
            for text in texts
            if isinstance(text, DNSText)
        ]
        identities = [(rival.properties.get(b"identity") or b"").decode() for rival in rivals]
        return any(identity < entry.identity for identity in identities)


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name; use up to 30 letters, digits, hyphens and underscores")


def to_service(entry: Entry) -> ServiceInfo:
    properties = {
        "name": entry.name,
        "cluster": entry.cluster,
        "identity": entry.identity,
        "version": str(entry.version),
        "device": entry.device,
        "memory_total": str(entry.memory_total_bytes),
        "memory_free": str(entry.memory_free_bytes),
        "control_port": str(entry.control_port),
        "data_port": str(entry.data_port),
    }
    # A host name of its own: the machine's may belong to another responder, with other addresses.
    host = f"hyperlane-{entry.identity.rpartition('#')[2]}.local."
    return ServiceInfo(
        SERVICE_TYPE,
        entry.instance,
        port=entry.control_port,
        properties=properties,
        server=host,
        parsed_addresses=list(entry.hosts),
    )


def from_service(instance: str, properties: Mapping[bytes, bytes | None], hosts: Sequence[str]) -> Entry:
    """Raises ValueError where a record is missing or malformed: anyone on the LAN can announce anything."""
    text = {key.decode(): (value or b"").decode() for key, value in properties.items()}
    try:
        return Entry(
            name=text["name"],
            cluster=text["cluster"],
            identity=text["identity"],
            version=int(text["version"]),
            device=text["device"],
            memory_total_bytes=int(text["memory_total"]),
            memory_free_bytes=int(text["memory_free"]),
            control_port=int(text["control_port"]),
            data_port=int(text["data_port"]),
            hosts=tuple(hosts),
        )
    except KeyError as error:
        raise ValueError(f"{instance} announces no {error.args[0]}") from error
