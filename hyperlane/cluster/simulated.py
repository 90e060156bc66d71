"""cluster=simulated: described machines that do not exist, to plan with: "what would four of these do for a 70B"."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from hyperlane.artifacts import Cluster, LinkInfo, WorkerInfo
from hyperlane.cluster.source import Surroundings
from hyperlane.errors import ConfigError
from hyperlane.partition.rates import speed_of_rates
from hyperlane.worker.operators import OPERATORS_VERSION

_STORED = ("none", "int8", "int4")


@dataclass(kw_only=True, slots=True)
class Machine:
    """So many alike. Rates are sustained ones; `site` groups machines for the links."""

    name: str = "machine"
    count: int = 1
    memory_gb: float = 16.0
    bandwidth_gb_per_s: float = 40.0  # of memory
    tflops: float = 1.0  # of matrix products
    step_ms: float = 0.5  # of any step, however many layers
    share: float = 1.0  # a CPU quota
    site: str = "lan"
    device: str = "cpu"


@dataclass(kw_only=True, slots=True)
class SiteLink:
    """Both directions between all machines of two sites, or within one."""

    source: str = "lan"
    target: str = "lan"
    mbit_per_s: float = 1000.0
    latency_ms: float = 0.1  # one way


@dataclass(kw_only=True, slots=True)
class Simulated:
    """Serves discover, plan and simulate; nothing can be deployed to it."""

    machines: list[Machine] = field(default_factory=list)
    links: list[SiteLink] = field(default_factory=list)
    coordinator_latency_ms: float = 0.1
    snapshot: str | None = None

    @asynccontextmanager
    async def open(self, surroundings: Surroundings) -> AsyncIterator["Described"]:
        yield Described(self.described())

    def described(self) -> Cluster:
        """The cluster that the settings describe; ConfigError where a value makes no sense."""
        if not self.machines:
            raise ConfigError("cluster.machines is empty; give cluster.machines=[{name: a, memory_gb: 24}]")
        workers = tuple(
            _worker(machine, index, 2e-3 * self.coordinator_latency_ms)
            for machine in self.machines
            for index in range(machine.count)
        )
        names = [worker.name for worker in workers]
        if len(set(names)) < len(names):
            raise ConfigError("cluster.machines names two kinds alike; give each another name")
        sites = {machine.site for machine in self.machines}
        return Cluster(
            workers=tuple(sorted(workers, key=lambda worker: worker.name)),
            links=tuple(one for link in self.links for one in _directions(link, sites)),
        )


@dataclass(frozen=True, slots=True)
class Described:
    cluster: Cluster

    async def find(self) -> Cluster:
        return self.cluster


def _worker(machine: Machine, index: int, round_trip_s: float) -> WorkerInfo:
    positive = ("memory_gb", "bandwidth_gb_per_s", "tflops", "share", "count")
    for key in positive:
        if getattr(machine, key) <= 0:
            raise ConfigError(f"cluster.machines: {key}={getattr(machine, key)} of {machine.name}; give more than 0")
    name = machine.name if machine.count == 1 else f"{machine.name}-{index}"
    memory_bytes = int(machine.memory_gb * 1e9)
    speeds = [
        speed_of_rates(stored, machine.bandwidth_gb_per_s * 1e9, machine.tflops * 1e12, machine.step_ms / 1e3)
        for stored in _STORED
    ]
    return WorkerInfo(
        name=name,
        device=machine.device,
        operators=OPERATORS_VERSION if machine.device == "cpu" else 0,
        memory_total_bytes=memory_bytes,
        memory_free_bytes=memory_bytes,
        control_address="127.0.0.1:1",
        data_addresses=(),
        latency_s=round_trip_s,
        speeds=tuple(speeds),
        share=machine.share,
        site=machine.site,
    )


def _directions(link: SiteLink, sites: set[str]) -> list[LinkInfo]:
    for key in ("source", "target"):
        if getattr(link, key) not in sites:
            raise ConfigError(f"cluster.links: no machine is at {key}={getattr(link, key)}; there are {sorted(sites)}")
    if link.mbit_per_s <= 0 or link.latency_ms < 0:
        raise ConfigError(f"cluster.links: {link.mbit_per_s:g} Mbit/s, {link.latency_ms:g} ms; give more than 0")
    ends = {(link.source, link.target), (link.target, link.source)}
    return [
        LinkInfo(source=a, target=b, latency_s=link.latency_ms / 1e3, bytes_per_s=link.mbit_per_s * 1e6 / 8)
        for a, b in sorted(ends)
    ]
