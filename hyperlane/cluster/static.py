"""cluster=static: workers at addresses that the user gives."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from hyperlane.artifacts import Cluster, WorkerInfo
from hyperlane.cluster.probe import Candidate, probe_all
from hyperlane.cluster.source import Surroundings
from hyperlane.errors import ClusterError, ConfigError


@dataclass(kw_only=True, slots=True)
class Static:
    """`addresses` are host:port of the workers' control ports; every one of them must answer."""

    addresses: list[str] = field(default_factory=list)
    probe_timeout_s: float = 5.0
    snapshot: str | None = None

    @asynccontextmanager
    async def open(self, surroundings: Surroundings) -> AsyncIterator["Addressed"]:
        yield Addressed(parse_addresses(self.addresses), self.probe_timeout_s)


@dataclass(frozen=True, slots=True)
class Addressed:
    candidates: tuple[Candidate, ...]
    probe_timeout_s: float

    async def find(self) -> Cluster:
        workers, rejected = await probe_all(self.candidates, None, self.probe_timeout_s)
        if rejected:
            reasons = "; ".join(one.reason for one in rejected)
            raise ClusterError(f"{len(rejected)} of cluster.addresses cannot be used: {reasons}")
        _check_names(workers)
        return Cluster(workers=workers)


def parse_addresses(addresses: Sequence[str]) -> tuple[Candidate, ...]:
    """Raises ConfigError for what is no host:port, and for an address given twice."""
    if not addresses:
        raise ConfigError("cluster.addresses is empty; give cluster.addresses=[host:port,...]")
    if len(set(addresses)) < len(addresses):
        raise ConfigError(f"cluster.addresses names {_first_repeated(addresses)} twice")
    return tuple(_candidate(address) for address in addresses)


def _candidate(address: str) -> Candidate:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"cluster.addresses: {address!r} is no host:port")
    return Candidate(hosts=(host,), control_port=int(port))


def _check_names(workers: Sequence[WorkerInfo]) -> None:
    names = [worker.name for worker in workers]
    if len(set(names)) < len(names):
        name = _first_repeated(names)
        both = " and ".join(worker.control_address for worker in workers if worker.name == name)
        raise ClusterError(f"{both} are both called {name}; start one of them with another --name")


def _first_repeated(values: Sequence[str]) -> str:
    return next(value for at, value in enumerate(values) if value in values[:at])
