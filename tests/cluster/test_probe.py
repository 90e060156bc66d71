"""Probing over real sockets."""

import contextlib
import socket

import pytest
import trio

from hyperlane.artifacts import Rejected, WorkerInfo
from hyperlane.cluster.probe import Candidate, probe, probe_all
from hyperlane.transport.link import open_receiver
from hyperlane.worker import worker as worker_module
from tests.cluster.conftest import Start


def candidate(port: int, *hosts: str, name: str = "w", identity: str = "w#01") -> Candidate:
    return Candidate(name=name, identity=identity, hosts=hosts or ("127.0.0.1",), control_port=port)


async def reason(one: Candidate, cluster: str | None = "c", timeout_s: float = 2.0) -> str:
    with trio.fail_after(timeout_s + 5):
        outcome = await probe(one, cluster, timeout_s)
    assert isinstance(outcome, Rejected)
    return outcome.reason


async def test_usable_worker_is_described(start_worker: Start) -> None:
    port = start_worker("w")
    info = await probe(candidate(port), "c", 5.0)
    assert isinstance(info, WorkerInfo)
    assert (info.name, info.device, info.memory_total_bytes, info.memory_free_bytes) == (
        "w",
        "cpu",
        1000,
        600,
    )
    assert info.control_address == f"127.0.0.1:{port}"
    assert 0 < info.latency_s < 1


async def test_address_that_answers_is_taken_and_all_are_kept(start_worker: Start) -> None:
    port = start_worker("w", "127.0.0.2", hosts=("127.0.0.2",))
    info = await probe(candidate(port, "127.0.0.1", "127.0.0.2", "127.0.0.3"), "c", 2.0)
    assert isinstance(info, WorkerInfo)
    assert info.control_address == f"127.0.0.2:{port}"
    assert [address.rpartition(":")[0] for address in info.data_addresses] == [
        "127.0.0.2",
        "127.0.0.1",
        "127.0.0.3",
    ]


async def test_refused_connections_name_every_address(start_worker: Start) -> None:
    port = start_worker("w", "127.0.0.2")
    told = await reason(candidate(port, "127.0.0.3", "127.0.0.4"))
    assert f"w at 127.0.0.3:{port} cannot be reached" in told
    assert f"w at 127.0.0.4:{port} cannot be reached" in told
    assert "Connection refused" in told


async def test_silence_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = await reason(candidate(server.getsockname()[1]), timeout_s=0.3)
    assert "did not answer GetStats in 0.3 s" in told


async def test_closed_data_port_is_told(start_worker: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    assert f"data port 127.0.0.1:{closed} cannot be reached" in await reason(
        candidate(start_worker("w", data_port=closed))
    )


async def test_data_port_of_another_worker_is_told(start_worker: Start) -> None:
    with contextlib.closing(open_receiver("127.0.0.1", 0, "other#02", native=False)) as other:
        told = await reason(candidate(start_worker("w", data_port=int(other.address.rpartition(":")[2]))))
    assert f"data port {other.address} cannot be reached: w#01 is not reached" in told
    assert "other#02 answers there" in told


async def test_silent_data_port_is_told(start_worker: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        told = await reason(candidate(start_worker("w", data_port=port)), timeout_s=0.5)
    assert f"data port 127.0.0.1:{port}" in told


async def test_other_cluster_is_told(start_worker: Start) -> None:
    port = start_worker("w", cluster="kitchen")
    assert await reason(candidate(port)) == "belongs to cluster 'kitchen', not 'c'"
    assert isinstance(await probe(candidate(port), None, 2.0), WorkerInfo)


async def test_other_version_is_told(start_worker: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "PROTOCOL_VERSION", 99)
    told = await reason(candidate(start_worker("w")))
    assert told == "speaks protocol version 99, not 3; update the older one"


async def test_another_worker_at_an_announced_address_is_not_taken(start_worker: Start) -> None:
    port = start_worker("other")
    assert f"another worker, other, answers at 127.0.0.1:{port}" in await reason(candidate(port))


async def test_all_are_probed_at_once_and_ordered_by_name(start_worker: Start) -> None:
    candidates = [candidate(start_worker(name), name=name, identity=f"{name}#01") for name in ("b", "a")]
    with socket.create_server(("127.0.0.1", 0)) as silent, trio.fail_after(5):
        port = silent.getsockname()[1]
        candidates += [candidate(port, name="z"), candidate(port, name="y")]
        started = trio.current_time()
        workers, rejected = await probe_all(candidates, "c", 1.0)
    assert trio.current_time() - started < 1.9
    assert [one.name for one in workers] == ["a", "b"]
    assert [one.name for one in rejected] == ["y", "z"]
