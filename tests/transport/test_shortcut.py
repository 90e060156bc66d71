"""One contract, every way that hidden rows can go: by TCP, by the double in shared memory, between GPUs."""

import json
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import IO

import pytest

from hyperlane.errors import TransportError
from hyperlane.transport.codec.device import cuda
from hyperlane.transport.door import Door, Visit, knock
from hyperlane.transport.frame import Frame, Kind
from hyperlane.transport.link import Receiver, open_receiver
from hyperlane.transport.shortcut import Landing, read_ticket, ticket
from tests.transport.memory_ring import PLACES, MemoryLanding, MemoryShortcut
from tests.transport.ways import WAIT_S, WAYS, WIDTH, Way, found, frame_of, made_rows

pytestmark = pytest.mark.timeout(60)
GPU = pytest.param("cuda", marks=pytest.mark.skipif(cuda() is None, reason="no GPU"))


@dataclass(slots=True)
class Bench:
    """A process that sends by some way, and the ends here."""

    way: Way
    landing: Landing
    receiver: Receiver
    process: "subprocess.Popen[str]"

    @property
    def orders(self) -> IO[str]:
        assert self.process.stdin is not None
        return self.process.stdin

    def order(self, step: int, rows: int, **more: str) -> None:
        self.orders.write(json.dumps({"step": step, "rows": rows, **more}) + "\n")
        self.orders.flush()

    def placed(self) -> bool:
        assert self.process.stdout is not None
        return bool(json.loads(self.process.stdout.readline())["placed"])


@contextmanager
def bench(name: str) -> Iterator[Bench]:
    identity, way = f"w#{secrets.token_hex(4)}", WAYS[name]
    with (
        closing(way.landing(identity)) as landing,
        closing(open_receiver("127.0.0.1", 0, identity, queue_depth=64)) as receiver,
        subprocess.Popen(
            [sys.executable, "-m", "tests.transport.ways", name, identity, receiver.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            yield Bench(way, landing, receiver, process)
        finally:
            if not process.stdin.closed:  # type: ignore[union-attr]
                process.stdin.close()  # type: ignore[union-attr]
            process.wait(WAIT_S)


@pytest.mark.parametrize("name", ["tcp", "memory", GPU])
def test_rows_come_as_they_went_and_in_order(name: str) -> None:
    with bench(name) as ends:
        for step in range(40):  # a ring goes round several times
            ends.order(step, 1 + step % 7)
        for step in range(40):
            frame = ends.receiver.recv(WAIT_S)
            assert (frame.step, frame.kind, frame.rows) == (step, ends.way.kind, 1 + step % 7)
            assert found(ends.landing, frame).tobytes() == made_rows(step, frame.rows).tobytes()


@pytest.mark.parametrize("name", ["tcp", "memory", GPU])
def test_rows_that_nobody_took_are_not_written_over(name: str) -> None:
    with bench(name) as ends:
        for step in range(30):
            ends.order(step, 3)
        for _ in range(PLACES):
            assert ends.placed()
        frames = [ends.receiver.recv(WAIT_S) for _ in range(PLACES)]
        assert [found(ends.landing, frame).tobytes() for frame in frames] == [
            made_rows(step, 3).tobytes() for step in range(PLACES)
        ]
        for step in range(PLACES, 30):
            assert found(ends.landing, ends.receiver.recv(WAIT_S)).tobytes() == made_rows(step, 3).tobytes()


@pytest.mark.parametrize("name", ["memory", GPU])
def test_a_step_too_large_for_a_place_is_left_to_tcp(name: str) -> None:
    with bench(name) as ends:
        ends.order(1, 1 << 17)
        assert not ends.placed()
        ends.order(2, 2)
        assert ends.placed()
        assert found(ends.landing, ends.receiver.recv(WAIT_S)).tobytes() == made_rows(2, 2).tobytes()


@pytest.mark.parametrize("name", ["memory", GPU])
def test_a_sender_that_dies_leaves_nobody_waiting(name: str) -> None:
    with bench(name) as ends:
        ends.order(1, 2)
        first = ends.receiver.recv(WAIT_S)
        found(ends.landing, first)
        ring, turn = read_ticket(first)
        ends.order(2, 2, ticket=ticket(ring, turn + 1).hex())  # of rows that never come
        promised = ends.receiver.recv(WAIT_S)
        outcomes: list[str] = []
        waiting = threading.Thread(target=lambda: outcomes.append(outcome(ends.landing, promised)))
        waiting.start()
        ends.process.kill()
        waiting.join(WAIT_S)
        assert not waiting.is_alive()
        assert outcomes == ["refused"]
        until_refused(ends.landing, promised)


@pytest.mark.parametrize("name", ["memory", GPU])
def test_a_ticket_of_no_ring_is_refused(name: str) -> None:
    with closing(WAYS[name].landing(f"w#{secrets.token_hex(4)}")) as landing:
        frame = frame_of(WAYS[name], 7, 1, ticket(1, 1))
        with pytest.raises(TransportError, match="step 7 lies in ring 1, which is closed"):
            landing.rows(frame)
        with pytest.raises(TransportError, match="carries no ticket"):
            landing.rows(frame._replace(kind=Kind.HIDDEN))


def test_rows_of_another_type_are_refused_with_both() -> None:
    with (
        closing(MemoryLanding("w#type", "float32")),
        pytest.raises(TransportError, match="rows of float16 where float32 belongs"),
    ):
        MemoryShortcut("w#type", "float16")


def test_who_is_not_on_this_host_is_not_reached() -> None:
    with pytest.raises(TransportError, match="w#nobody is not on this host"):
        knock("w#nobody")


def test_two_workers_of_one_identity_cannot_be() -> None:
    def serve(visit: Visit) -> None: ...

    with closing(Door("w#twice", serve)), pytest.raises(TransportError, match="no Unix socket for shortcuts"):
        Door("w#twice", serve)


def outcome(landing: Landing, frame: Frame) -> str:
    try:
        return "rows" if found(landing, frame).shape == (2, WIDTH) else "others"
    except TransportError:
        return "refused"


def until_refused(landing: Landing, frame: Frame) -> None:
    refused = threading.Event()
    for _ in range(1000):
        if outcome(landing, frame) == "refused":
            refused.set()
            break
        refused.wait(0.01)
    assert refused.is_set()
