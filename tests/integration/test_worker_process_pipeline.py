"""Real shards in real worker processes, driven over gRPC alone and over data links."""

import contextlib
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import trio

from hyperlane.artifacts import Manifest
from hyperlane.control import transfer
from hyperlane.control.client import ControlClient
from hyperlane.control.types import Loaded, ShardSpec, State, Step, Wiring
from hyperlane.errors import TransportError, WorkerError
from hyperlane.model.assemble import assemble, shard_blobs
from hyperlane.transport.frame import Frame, Kind, Run
from hyperlane.transport.link import connect, open_receiver
from tests.fixtures_model import Exported
from tests.integration.processes import WorkerProcess, start_worker, stop_worker

PROMPT = (5, 77, 130, 9, 201)
LAYERS = 4


@dataclass(frozen=True, slots=True)
class Running:
    process: WorkerProcess
    client: ControlClient

    @property
    def data_address(self) -> str:
        return f"127.0.0.1:{self.process.port('data')}"

    def wire_to(self, next_worker: "Running", epoch: int, *, data: bool = True) -> str:
        wiring = Wiring(
            epoch=epoch,
            identity=next_worker.client.stats().result().identity,
            data_addresses=("127.0.0.1:1", next_worker.data_address) if data else (),
            control_address=next_worker.client.address,
            codec="raw",
        )
        return self.client.wire(wiring).result().address

    def wire_home(self, epoch: int, identity: str = "", addresses: Iterable[str] = ()) -> str:
        wiring = Wiring(
            epoch=epoch, identity=identity, data_addresses=tuple(addresses), control_address=None, codec="raw"
        )
        return self.client.wire(wiring).result().address


Start = Callable[..., list[Running]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(*names)`: workers, each with a store of its own, the same one each time."""
    cluster = f"t-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:

        def begin(name: str) -> WorkerProcess:
            store = str(tmp_path / name)
            process = start_worker("--name", name, "--cluster", cluster, "--store", store, "--threads", "1")
            stack.callback(stop_worker, process)
            return process

        def start(*names: str) -> list[Running]:
            processes = [begin(name) for name in names]
            ports = [process.wait_ready().port("control") for process in processes]
            clients = [ControlClient(f"127.0.0.1:{port}", name) for port, name in zip(ports, names, strict=True)]
            for client in clients:
                stack.callback(client.close)
            return [Running(*both) for both in zip(processes, clients, strict=True)]

        yield start


def shard(model: Exported, start: int, stop: int) -> ShardSpec:
    manifest: Manifest = model.manifest
    return ShardSpec(
        key=manifest.key,
        graph=model.store.put(assemble(manifest, model.store, start, stop)),
        weights=shard_blobs(manifest, start, stop),
        start=start,
        stop=stop,
        first=start == 0,
        last=stop == LAYERS,
        slots=2,
        context=64,
        dtype="float32",
    )


def load(worker: Running, model: Exported, start: int, stop: int) -> Loaded:
    async def load() -> Loaded:
        with trio.fail_after(60):
            return await worker.client.load_shard(shard(model, start, stop), model.store.path)

    return trio.run(load)


def expected(model: Exported, count: int) -> list[int]:
    """Greedy tokens of the whole model in this process."""
    chain = model.chain(0, LAYERS, slots=2)
    result = chain.step([Run(0, 1, 0, len(PROMPT))], PROMPT)
    found: list[int] = []
    for position in range(len(PROMPT), len(PROMPT) + count):
        assert result.ids_NK is not None
        found.append(int(result.ids_NK[0, 0]))
        result = chain.step([Run(0, 1, position, 1)], found[-1:])
    return found


def over_grpc(first: Running, epoch: int, count: int) -> list[int]:
    """Greedy tokens through ExecutePipeline; each step waits for the token before it."""
    tokens: list[int] = []

    def step(ids: Iterable[int], position: int) -> Step:
        ids_R = np.array(list(ids), np.int32)
        runs = (Run(0, 1, position, len(ids_R)),)
        return Step(epoch=epoch, lane=0, step=len(tokens), flags=0, runs=runs, tokens_R=ids_R)

    position, ids = 0, PROMPT
    for _ in range(count):
        (reply,) = first.client.execute([step(ids, position)], 20.0)
        assert reply.error is None, reply.error
        assert reply.candidates is not None
        position, ids = position + len(ids), (int(reply.candidates.ids_NK[0, 0]),)
        tokens += ids
    return tokens


def over_links(first: Running, last: Running, epoch: int, count: int) -> list[int]:
    """Greedy tokens through frames."""
    identity = f"coordinator#{secrets.token_hex(4)}"
    with contextlib.closing(open_receiver("127.0.0.1", 0, identity, native=False)) as receiver:
        last.wire_home(epoch, identity, [receiver.address])
        meant = first.client.stats().result().identity
        with contextlib.closing(connect([first.data_address], meant, timeout_s=10.0, native=False)) as sender:
            tokens: list[int] = []
            position, ids = 0, PROMPT
            for number in range(count):
                run = Run(0, 1, position, len(ids))
                payload = np.array(ids, "<i4").tobytes()
                sender.send(
                    Frame(
                        kind=Kind.TOKENS,
                        epoch=epoch,
                        step=number,
                        rows=len(ids),
                        width=1,
                        runs=(run,),
                        payload=payload,
                    ),
                    timeout_s=10.0,
                )
                reply = receiver.recv(20.0)
                assert (reply.kind, reply.step) == (Kind.CANDIDATES, number), reply.text
                position, ids = position + len(ids), (int(np.frombuffer(reply.payload, "<i4", 1)[0]),)
                tokens += ids
            return tokens


def test_two_processes_give_the_tokens_of_one_model(tiny: Exported, start: Start) -> None:
    first, last = start("w1", "w2")
    sent = [load(first, tiny, 0, 2), load(last, tiny, 2, 4)]
    assert [one.sent_files for one in sent] == [4, 4]  # graph, embedding or head, two layers
    reference = expected(tiny, 8)

    last.wire_home(1)
    first.wire_to(last, 1, data=False)
    assert first.client.stats().result().state is State.WIRED
    assert over_grpc(first, 1, 8) == reference

    assert first.wire_to(last, 2) == last.data_address  # the address before it answers nothing
    assert over_links(first, last, 2, 8) == reference
    with socket.create_connection(("127.0.0.1", last.process.port("data"))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 64)
        stranger.settimeout(10)
        while stranger.recv(4096):  # the greeting, then the end
            pass
    stats = last.client.stats().result()
    assert len(stats.rejected) == 1
    (link,) = first.client.stats().result().links
    assert (link.target, link.frames, link.fp16_bytes) == ("w2", 8, (len(PROMPT) + 7) * 64 * 2)

    first.wire_to(last, 3)
    assert over_links(first, last, 3, 8) == reference

    with pytest.raises(WorkerError, match="epoch 2 is over on worker w1"):
        first.wire_to(last, 2)
    with pytest.raises(TransportError, match=r"stranger#1 is not reached .*w2#\w+ answers there"):
        first.wire_home(4, "stranger#1", [last.data_address])

    for running in (first, last):
        running.process.popen.terminate()
        status, log = running.process.end()
        assert (status, "Traceback" in log) == (0, False)


def test_restarted_worker_needs_nothing_again_and_a_new_plan_only_what_it_lacks(tiny: Exported, start: Start) -> None:
    (worker,) = start("w1")
    assert load(worker, tiny, 0, 2).sent_files == 4
    stop_worker(worker.process)
    (again,) = start("w1")
    assert load(again, tiny, 0, 2).sent_files == 0
    assert load(again, tiny, 0, 3).sent_files == 2  # one layer and the new graph
    assert load(again, tiny, 0, 2).sent_files == 0


def test_transfer_that_the_worker_did_not_survive_goes_on_later(
    tiny: Exported, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "BACKOFF_S", 0.0)
    (worker,), spec = start("w1"), shard(tiny, 0, LAYERS)
    total_bytes = sum(blob.bytes for blob in spec.files)

    def kill(sent_bytes: int, _: int) -> None:
        if sent_bytes > total_bytes / 2:
            while not any(worker.client.held_bytes(spec.files).result()):
                """The worker has yet to write what it received."""
            worker.process.popen.kill()
            worker.process.popen.wait(10)

    async def interrupted() -> None:
        with trio.fail_after(30), pytest.raises(WorkerError, match=r"worker w1 at .* cannot be reached"):
            await worker.client.load_shard(spec, tiny.store.path, progress=kill)

    trio.run(interrupted)
    loaded = load(start("w1")[0], tiny, 0, LAYERS)
    assert loaded.loaded
    assert 0 < loaded.sent_bytes < total_bytes
