"""Client and service over real gRPC on loopback."""

import errno
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import trio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from hyperlane import PROTOCOL_VERSION
from hyperlane.control import transfer
from hyperlane.control.client import ControlClient
from hyperlane.control.service import ControlServer
from hyperlane.control.types import State, Step
from hyperlane.errors import ClusterError, ConfigError, OutOfMemoryError, StoreError, TransportError, WorkerError
from hyperlane.model.store import LayerStore
from hyperlane.transport.frame import Run
from tests.worker.fakes import Workshop, make_spec, shard_spec, wiring

Serve = Callable[..., ControlClient]


def unused_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


async def test_stats_arrive_whole(serve: Serve) -> None:
    stats = await serve("w").stats()
    assert (stats.name, stats.identity, stats.cluster) == ("w", "w#01", "c")
    assert stats.protocol_version == PROTOCOL_VERSION
    assert stats.state is State.EMPTY
    assert stats.shard is None
    assert stats.hosts == ("127.0.0.1",)


def test_result_waits_in_a_plain_thread(serve: Serve) -> None:
    assert serve("w").stats().result().name == "w"


async def test_files_can_be_sent_while_a_shard_goes_on(serve: Serve, workshop: Workshop, tmp_path: Path) -> None:
    here, client = LayerStore(tmp_path / "here"), serve("w")
    spec = make_spec(here.put(b"graph"), (here.put(b"a" * 100),))
    await client.load_shard(spec, here.path)
    later = make_spec(here.put(b"other graph"), (spec.weights[0], here.put(b"c" * 20)), start=1)
    ahead = await client.load_shard(later, here.path, files_only=True)
    assert (ahead.loaded, ahead.sent_files, ahead.sent_bytes) == (False, 2, 31)
    held = (await client.stats()).shard
    assert held is not None
    assert held.graph_sha256 == spec.graph.sha256, "what was loaded is still there"
    loaded = await client.load_shard(later, here.path)
    assert (loaded.loaded, loaded.sent_files) == (True, 0)


async def test_shard_is_sent_once(serve: Serve, workshop: Workshop, tmp_path: Path) -> None:
    here, client = LayerStore(tmp_path / "here"), serve("w")
    spec = make_spec(here.put(b"graph"), (here.put(b"a" * 3_000_000), here.put(b"b" * 10)))
    progress: list[tuple[int, int]] = []
    first = await client.load_shard(spec, here.path, progress=lambda *sent: progress.append(sent))
    assert (first.loaded, first.sent_files, first.sent_bytes) == (True, 3, 3_000_015)
    assert progress[-1] == (3_000_015, 3_000_015)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    again = await client.load_shard(spec, here.path)
    assert (again.loaded, again.sent_files, again.sent_bytes) == (False, 0, 0)
    moved = make_spec(spec.graph, (spec.weights[1], here.put(b"c" * 20)), start=1)
    replanned = await client.load_shard(moved, here.path)
    assert (replanned.loaded, replanned.sent_files, replanned.sent_bytes) == (True, 1, 20)
    assert len(workshop.sessions) == 2


async def test_transfer_goes_on_where_it_stopped(serve: Serve, tmp_path: Path) -> None:
    here, there = LayerStore(tmp_path / "here"), LayerStore(tmp_path / "w")
    spec = make_spec(here.put(b"graph"), (here.put(b"a" * 3_000_000),))
    there.append(spec.weights[0].sha256, 0, b"a" * 2_000_000)
    loaded = await serve("w").load_shard(spec, here.path)
    assert loaded.sent_bytes == 1_000_005
    assert there.is_intact(spec.weights[0])


async def test_a_worker_without_memory_says_so_and_goes_on(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, client = LayerStore(tmp_path / "here"), serve("w")
    spec = make_spec(here.put(b"graph"), ())
    with monkeypatch.context() as patched:
        patched.setattr("tests.worker.fakes.FakeSession.__init__", _no_memory)
        with pytest.raises(OutOfMemoryError, match=r"worker w at .*: keys and values need 9 GiB") as caught:
            await client.load_shard(spec, here.path)
    assert caught.value.exit_code == 2
    assert (await client.stats()).state is State.EMPTY
    assert (await client.load_shard(spec, here.path)).loaded


def _no_memory(*args: object) -> None:
    raise OutOfMemoryError("keys and values need 9 GiB")


async def test_wrong_partial_file_is_sent_again(serve: Serve, tmp_path: Path) -> None:
    here, there = LayerStore(tmp_path / "here"), LayerStore(tmp_path / "w")
    spec = make_spec(here.put(b"graph"), (here.put(b"a" * 1000),))
    there.append(spec.weights[0].sha256, 0, b"x" * 400)
    loaded = await serve("w").load_shard(spec, here.path)
    assert loaded.loaded
    assert there.is_intact(spec.weights[0])


async def test_altered_file_of_the_worker_is_sent_again(serve: Serve, tmp_path: Path) -> None:
    here, there = LayerStore(tmp_path / "here"), LayerStore(tmp_path / "w")
    spec = shard_spec(here)
    client = serve("w")
    await client.load_shard(spec, here.path)
    await client.unload()
    there.path(spec.weights[0].sha256).write_bytes(b"altered")
    loaded = await client.load_shard(spec, here.path)
    assert (loaded.sent_files, loaded.sent_bytes) == (1, spec.weights[0].bytes)
    assert there.is_intact(spec.weights[0])


async def test_full_disk_of_the_worker_is_told(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, client = LayerStore(tmp_path / "here"), serve("w")
    spec = shard_spec(here)
    monkeypatch.setattr(transfer, "BACKOFF_S", 0.0)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(StoreError, match=f"worker w at {client.address}: the disk of .* is full; free some space"):
        await client.load_shard(spec, here.path)


async def test_file_missing_here_is_told(serve: Serve, tmp_path: Path) -> None:
    here = LayerStore(tmp_path / "here")
    spec = shard_spec(here)
    here.discard(spec.weights[0].sha256)
    with pytest.raises(StoreError, match="is missing or was truncated; run stages="):
        await serve("w").load_shard(spec, here.path)


async def test_chain_over_grpc_alone(serve: Serve, tmp_path: Path) -> None:
    here, first, second = LayerStore(tmp_path / "here"), serve("w1"), serve("w2")
    await first.load_shard(shard_spec(here, stop=3, last=False), here.path)
    await second.load_shard(shard_spec(here, start=3, stop=4, first=False), here.path)
    await second.wire(wiring(data_addresses=()))
    await first.wire(wiring(data_addresses=(), control_address=second.address))
    steps = [
        Step(epoch=1, lane=0, step=at, flags=0, runs=(Run(0, 1, 0, 1),), tokens_R=np.array([at], np.int32))
        for at in range(20)
    ]
    replies = await trio.to_thread.run_sync(lambda: list(first.execute(iter(steps), 10.0)))
    assert [reply.step for reply in replies] == list(range(20))
    assert [reply.candidates.ids_NK.item() for reply in replies if reply.candidates] == [
        2 * (at + 4) for at in range(20)
    ]


async def test_errors_name_the_worker_and_its_address(serve: Serve, workshop: Workshop, tmp_path: Path) -> None:
    client = serve("w")
    with pytest.raises(WorkerError, match=f"worker w at {client.address}: worker w holds no shard"):
        await client.wire(wiring())
    here = LayerStore(tmp_path / "here")
    await client.load_shard(shard_spec(here), here.path)
    workshop.unreachable = True
    with pytest.raises(TransportError, match=f"worker w at {client.address}: cannot reach next#02"):
        await client.wire(wiring())


async def test_unreachable_worker_is_told_after_retries() -> None:
    address = unused_address()
    expected = pytest.raises(WorkerError, match=f"worker w at {address} cannot be reached")
    with trio.fail_after(10), ControlClient(address, "w") as client, expected:
        await client.stats()


async def test_worker_that_comes_up_late_is_reached_by_retries(serve: Serve) -> None:
    address = unused_address()
    with ControlClient(address, "w") as client, trio.fail_after(10):
        call = client.stats()
        serve("w", int(address.rpartition(":")[2]))
        assert (await call).name == "w"


async def test_silent_worker_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        expected = pytest.raises(WorkerError, match=r"w at .* did not answer GetStats in 0.3 s")
        with trio.fail_after(10), ControlClient(address, "w") as client, expected:
            await client.stats(0.3)


async def test_cancelling_ends_the_call() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        ControlClient(f"127.0.0.1:{server.getsockname()[1]}") as client,
    ):
        call = client.stats(60.0)
        with trio.move_on_after(0.05) as scope:
            await call
        assert scope.cancelled_caught
        with pytest.raises(WorkerError, match=r"GetStats of the worker at .* was cancelled"):
            call.result()


async def test_server_of_another_kind_is_told() -> None:
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        expected = pytest.raises(ClusterError, match="knows no GetStats: another version of Hyperlane")
        with ControlClient(f"127.0.0.1:{port}") as client, expected:
            await client.stats()
        server.stop(0).wait(5)


def test_port_in_use_is_told(serve: Serve) -> None:
    port = int(serve("w").address.rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port} .*--control-port"):
        ControlServer("127.0.0.1", port)


def test_health_and_reflection_answer(serve: Serve) -> None:
    with grpc.insecure_channel(serve("w").address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        check = health_pb2.HealthCheckRequest(service="hyperlane.control.Worker")
        assert health.Check(check, timeout=5).status == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        replies = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]), timeout=5)
        names = {service.name for service in next(replies).list_services_response.service}
    assert "hyperlane.control.Worker" in names
    assert "grpc.health.v1.Health" in names


async def test_compare_answers_each_pair_with_its_divergences(serve: Serve, tmp_path: Path) -> None:
    here, client = LayerStore(tmp_path / "here"), serve("w")
    await client.load_shard(shard_spec(here, first=False), here.path)
    await client.wire(wiring(data_addresses=()))
    run, rows = (Run(0, 2, 0, 2),), np.array([[1, 2], [3, 3]], np.float32)
    coded = np.array([[1, 2], [3, 5]], np.float32)
    steps = [Step(epoch=1, lane=0, step=0, flags=1, runs=run, hidden_RD=hidden) for hidden in (rows, coded)]
    (kl_N,) = await trio.to_thread.run_sync(lambda: list(client.compare(iter(steps), 10.0)))
    half_by_odds = 0.5 * np.log(0.5 / np.array([1 / (1 + np.e**2), np.e**2 / (1 + np.e**2)]))
    np.testing.assert_allclose(kl_N, [0, half_by_odds.sum()], atol=1e-6)
    wanting_none = [Step(epoch=1, lane=0, step=7, flags=0, runs=run, hidden_RD=rows)] * 2
    with pytest.raises(WorkerError, match="step 7 gave no logits"):
        await trio.to_thread.run_sync(lambda: list(client.compare(iter(wanting_none), 10.0)))
