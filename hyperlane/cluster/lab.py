"""cluster=lab: workers on the LAN, found by mDNS."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hyperlane import PROTOCOL_VERSION
from hyperlane.artifacts import Cluster, Rejected
from hyperlane.cluster.announce import Entry
from hyperlane.cluster.browse import Heard, browse
from hyperlane.cluster.probe import Candidate, probe_all
from hyperlane.cluster.source import Surroundings
from hyperlane.errors import ClusterError


@dataclass(kw_only=True, slots=True)
class Lab:
    """Workers that someone started with `hyperlane-worker --allow-lan --cluster NAME`."""

    name: str = "lab"
    workers: int | None = None  # how many to wait for; None: all that answer within browse_timeout_s
    interface: str | None = None
    browse_timeout_s: float = 5.0
    probe_timeout_s: float = 2.0
    snapshot: str | None = None

    @asynccontextmanager
    async def open(self, surroundings: Surroundings) -> AsyncIterator["Announced"]:
        yield Announced(self.name, self.interface, self.workers, self.browse_timeout_s, self.probe_timeout_s)


@dataclass(frozen=True, slots=True)
class Announced:
    """Finds what is announced as a worker of `cluster`."""

    cluster: str
    interface: str | None
    expected: int | None
    browse_timeout_s: float
    probe_timeout_s: float
    hosts: tuple[str, ...] = ()

    async def find(self) -> Cluster:
        heard = await browse(
            self.cluster,
            self.browse_timeout_s,
            interface=self.interface,
            expected=self.expected,
            hosts=self.hosts,
        )
        candidates, refused = screen(heard, self.cluster)
        workers, unusable = await probe_all(candidates, self.cluster, self.probe_timeout_s)
        found = Cluster(workers=workers, rejected=(*heard.rejected, *refused, *unusable))
        if len(workers) < (self.expected or 1):
            raise ClusterError(too_few(found, self.cluster, self.expected, self.browse_timeout_s))
        return found


def screen(heard: Heard, cluster: str) -> tuple[list[Candidate], list[Rejected]]:
    """What need not be probed to be refused: another cluster or version, a name that was taken already."""
    candidates: dict[str, Candidate] = {}
    rejected: list[Rejected] = []
    for entry in heard.entries:
        reason = _refusal(entry, cluster, candidates)
        if reason:
            address = f"{entry.hosts[0]}:{entry.control_port}"
            rejected.append(Rejected(name=entry.name, address=address, reason=reason))
        else:
            candidates[entry.name] = Candidate(
                name=entry.name,
                identity=entry.identity,
                hosts=entry.hosts,
                control_port=entry.control_port,
            )
    return list(candidates.values()), rejected


def too_few(found: Cluster, cluster: str, expected: int | None, waited_s: float) -> str:
    """What was seen instead, and what to do."""
    seen = "; ".join(f"{one.name} ({one.address}): {one.reason}" for one in found.rejected)
    start = f"start one with hyperlane-worker --allow-lan --cluster {cluster}"
    advice = f"rejected: {seen}" if seen else f"{start}, or use cluster=static"
    if found.workers:
        names = ", ".join(one.name for one in found.workers)
        counted = f"only {len(found.workers)} of {expected} workers of cluster {cluster!r} ({names}) answered"
    elif seen:
        counted = f"no usable worker of cluster {cluster!r} answered"
    else:
        counted = f"no worker of cluster {cluster!r} announced itself"
    return f"{counted} in {waited_s:g} s; {advice}"


def _refusal(entry: Entry, cluster: str, taken: dict[str, Candidate]) -> str:
    if entry.cluster != cluster:
        return f"belongs to cluster {entry.cluster!r}, not {cluster!r}"
    if entry.version != PROTOCOL_VERSION:
        return f"speaks protocol version {entry.version}, not {PROTOCOL_VERSION}; update the older one"
    if entry.name in taken:
        return f"has the name of the worker at {taken[entry.name].address}; start it with another --name"
    return ""
