"""Asking a worker at each of its addresses, over the paths that will be used; the fastest is taken."""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from hyperlane import PROTOCOL_VERSION
from hyperlane.artifacts import Rejected, WorkerInfo
from hyperlane.control.client import ControlClient
from hyperlane.control.types import WorkerStats
from hyperlane.errors import HyperlaneError, TransportError, one_line
from hyperlane.transport.link import connect

CONNECTIONS_TIMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A worker to probe. `name` and `identity` are empty where only an address is known."""

    name: str = ""
    identity: str = ""
    hosts: tuple[str, ...]
    control_port: int

    @property
    def address(self) -> str:
        return f"{self.hosts[0]}:{self.control_port}"


@dataclass(frozen=True, slots=True)
class _Answer:
    host: str
    stats: WorkerStats
    latency_s: float


async def probe_all(
    candidates: Sequence[Candidate], cluster: str | None, timeout_s: float
) -> tuple[tuple[WorkerInfo, ...], tuple[Rejected, ...]]:
    """Probe all candidates at once: the usable ones by name, and why the others are not.

    `cluster` is the name that a worker must give, or None where any will do.
    """
    usable: list[WorkerInfo] = []
    rejected: list[Rejected] = []

    async def one(candidate: Candidate) -> None:
        outcome = await probe(candidate, cluster, timeout_s)
        (usable if isinstance(outcome, WorkerInfo) else rejected).append(outcome)  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        for candidate in candidates:
            nursery.start_soon(one, candidate)
    return tuple(sorted(usable, key=lambda info: info.name)), tuple(sorted(rejected, key=lambda r: r.name))


async def probe(candidate: Candidate, cluster: str | None, timeout_s: float) -> WorkerInfo | Rejected:
    """Every address at once, each with `timeout_s` for control and data together."""
    answers: list[_Answer] = []
    failures: list[str] = []

    async def one(host: str) -> None:
        try:
            answers.append(await _ask(candidate, host, timeout_s))
        except (HyperlaneError, OSError) as error:
            failures.append(one_line(error))

    async with trio.open_nursery() as nursery:
        for host in candidate.hosts:
            nursery.start_soon(one, host)
    if not answers:
        return _reject(candidate, "; ".join(sorted(failures)))
    answers.sort(key=lambda answer: answer.latency_s)
    stats = answers[0].stats
    if stats.protocol_version != PROTOCOL_VERSION:
        reason = f"speaks protocol version {stats.protocol_version}, not {PROTOCOL_VERSION}; update the older one"
        return _reject(candidate, reason)
    if cluster is not None and stats.cluster != cluster:
        return _reject(candidate, f"belongs to cluster {stats.cluster!r}, not {cluster!r}")
    return _info(candidate, answers)


def _info(candidate: Candidate, answers: Sequence[_Answer]) -> WorkerInfo:
    """From answers in order of latency. Other workers may reach addresses that this machine cannot."""
    stats = answers[0].stats
    hosts = dict.fromkeys([*(answer.host for answer in answers), *candidate.hosts, *stats.hosts])
    return WorkerInfo(
        name=stats.name,
        device=stats.device,
        operators=stats.operators,
        memory_total_bytes=stats.memory_total_bytes,
        memory_free_bytes=stats.memory_free_bytes,
        control_address=f"{answers[0].host}:{candidate.control_port}",
        data_addresses=tuple(f"{host}:{stats.data_port}" for host in hosts),
        latency_s=answers[0].latency_s,
    )


async def _ask(candidate: Candidate, host: str, timeout_s: float) -> _Answer:
    """GetStats, then the data port: its greeting must be this worker's; a connection's time is the latency."""
    address = f"{host}:{candidate.control_port}"
    deadline = trio.current_time() + timeout_s
    with ControlClient(address, candidate.name, retries=False) as client:
        stats = await client.stats(timeout_s)
    if candidate.identity and stats.identity != candidate.identity:
        raise OSError(f"another worker, {stats.name}, answers at {address}")
    try:
        with trio.fail_at(deadline):
            await trio.to_thread.run_sync(_greet, f"{host}:{stats.data_port}", stats.identity, timeout_s)
            left_s = deadline - trio.current_time()
            latency_s = await trio.to_thread.run_sync(_connect_s, host, stats.data_port, left_s)
    except trio.TooSlowError:
        raise OSError(f"data port {host}:{stats.data_port} did not answer in {timeout_s:g} s") from None
    except (OSError, TransportError) as error:
        reason = one_line(error)
        raise OSError(f"data port {host}:{stats.data_port} cannot be reached: {reason}") from error
    return _Answer(host, stats, latency_s)


def _greet(address: str, identity: str, timeout_s: float) -> None:
    connect([address], identity, timeout_s=timeout_s, native=False).close()


def _connect_s(host: str, port: int, timeout_s: float) -> float:
    """The least of several: only the kernels have a part in it, not trio, which probes other workers meanwhile."""
    found, until_s = [], time.perf_counter() + timeout_s
    for _ in range(CONNECTIONS_TIMED):
        start_s = time.perf_counter()
        with socket.create_connection((host.strip("[]"), port), max(until_s - start_s, 1e-3)):
            found.append(time.perf_counter() - start_s)
    return min(found)


def _reject(candidate: Candidate, reason: str) -> Rejected:
    return Rejected(name=candidate.name or candidate.address, address=candidate.address, reason=reason)
