"""One contract, two links: the native one and the one in Python, in every combination."""

import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import numpy as np
import pytest

from hyperlane.errors import ConfigError, TransportError
from hyperlane.transport import link
from hyperlane.transport.frame import Frame, Kind, Run, pack, unpack
from hyperlane.transport.link import Receiver, Sender, connect, open_receiver
from hyperlane.transport.payload import payload_of
from tests.transport.test_frame import ATTACKS, GOLDEN

LIMIT_BYTES = 1 << 20
WAIT_S = 20.0
pytestmark = pytest.mark.timeout(60)


def tokens(step: int, count: int = 1) -> Frame:
    ids = np.full(count, step, np.int32)
    return Frame(kind=Kind.TOKENS, step=step, rows=count, width=1, runs=(Run(0, 0, 0, count),), payload=payload_of(ids))


def send_until_full(sender: Sender) -> int:
    for step in range(1000):  # 160 MB: more than the kernel and both queues take
        try:
            sender.send(tokens(step, 40000), 0.5)
        except TimeoutError:
            return step
    raise AssertionError("the sender never waited")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


@pytest.fixture(params=[True, False], ids=["native receiver", "python receiver"])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    opened = open_receiver("127.0.0.1", 0, "w1#00", queue_depth=4, max_frame_bytes=LIMIT_BYTES, native=request.param)
    with closing(opened):
        yield opened


@pytest.fixture(params=[True, False], ids=["native sender", "python sender"])
def sender(request: pytest.FixtureRequest, receiver: Receiver) -> Iterator[Sender]:
    opened = connect([receiver.address], "w1#00", timeout_s=WAIT_S, queue_depth=4, native=request.param)
    with closing(opened):
        yield opened


def raw_connection(receiver: Receiver) -> socket.socket:
    host, port = receiver.address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=WAIT_S)
    connection.recv(4096)
    return connection


def is_cut(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_frames_arrive_in_order_and_both_ends_count_the_same(receiver: Receiver, sender: Sender) -> None:
    frames = [tokens(step, count) for step, count in enumerate((1, 2, 1000, 60000, 3))]
    for frame in frames:
        sender.send(frame, WAIT_S)
        assert receiver.recv(WAIT_S) == frame
    sender.flush(WAIT_S)
    assert (sender.frames, sender.wire_bytes) == (receiver.frames, receiver.wire_bytes)
    assert sender.wire_bytes == sum(len(pack(frame)) for frame in frames)


def test_many_frames_in_flight(receiver: Receiver, sender: Sender) -> None:
    counts = [1 + step * 7919 % 30000 for step in range(60)]
    feeder = threading.Thread(target=lambda: [sender.send(tokens(s, n), WAIT_S) for s, n in enumerate(counts)])
    feeder.start()
    received = [receiver.recv(WAIT_S) for _ in counts]
    feeder.join()
    assert received == [tokens(step, count) for step, count in enumerate(counts)]


def test_a_full_chain_of_queues_makes_the_sender_wait(receiver: Receiver, sender: Sender) -> None:
    sent = send_until_full(sender)
    assert [receiver.recv(WAIT_S).step for _ in range(sent)] == list(range(sent))
    with pytest.raises(TimeoutError):  # the frame that was refused is not queued
        receiver.recv(0.05)


def test_receiving_nothing_times_out(receiver: Receiver) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        receiver.recv(0.05)
    assert 0.04 < time.monotonic() - started < WAIT_S


def test_frames_are_taken_in_while_nobody_receives(receiver: Receiver, sender: Sender) -> None:
    with pytest.raises(TimeoutError):
        receiver.recv(0.01)
    for step in range(4):
        sender.send(tokens(step), WAIT_S)
    until(lambda: receiver.frames == 4)
    assert [receiver.recv(0).step for _ in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ATTACKS)
def test_a_bad_connection_is_cut_and_the_others_go_on(receiver: Receiver, sender: Sender, name: str) -> None:
    sender.send(tokens(1), WAIT_S)
    assert receiver.recv(WAIT_S).step == 1
    with closing(raw_connection(receiver)) as attacker:
        attacker.sendall(ATTACKS[name])
        with suppress(OSError):  # it may be cut already
            attacker.shutdown(socket.SHUT_WR)
        until(lambda: len(receiver.rejected) == 1)
        assert is_cut(attacker)
    assert "\n" not in receiver.rejected[0]
    assert "127.0.0.1:" in receiver.rejected[0]
    sender.send(tokens(2), WAIT_S)
    assert receiver.recv(WAIT_S).step == 2
    assert receiver.peers == 1


@pytest.mark.parametrize("cut", [1, 39, 40, 59, len(GOLDEN) - 1])
def test_a_frame_that_ends_early_is_noted(receiver: Receiver, cut: int) -> None:
    with closing(raw_connection(receiver)) as attacker:
        attacker.sendall(GOLDEN + GOLDEN[:cut])
    assert receiver.recv(WAIT_S) == unpack(GOLDEN)
    until(lambda: len(receiver.rejected) == 1)
    assert "middle of a frame" in receiver.rejected[0]


def test_a_frame_over_the_limit_is_refused_before_its_payload_comes(receiver: Receiver) -> None:
    count = LIMIT_BYTES // 4
    header = struct.pack("<4sBBBBIHHQIIQ", b"HYPL", 1, Kind.TOKENS, 0, 0, 0, 0, 1, 0, count, 1, 4 * count)
    with closing(raw_connection(receiver)) as attacker:
        attacker.sendall(header)
        until(lambda: len(receiver.rejected) == 1)
    assert f"over the limit of {LIMIT_BYTES}" in receiver.rejected[0]


def test_idle_connections_do_not_shut_out_a_sender(receiver: Receiver, sender: Sender) -> None:
    sender.send(tokens(1), WAIT_S)
    assert receiver.recv(WAIT_S).step == 1
    idle = [raw_connection(receiver) for _ in range(80)]
    with closing(connect([receiver.address], "w1#00", timeout_s=WAIT_S)) as late:
        late.send(tokens(2), WAIT_S)
        assert receiver.recv(WAIT_S).step == 2
    until(lambda: receiver.peers <= 64)
    sender.send(tokens(3), WAIT_S)
    assert receiver.recv(WAIT_S).step == 3
    for connection in idle:
        connection.close()


@pytest.mark.parametrize(
    "changes",
    [{"epoch": 2**32}, {"lane": -1}, {"rows": 2}, {"width": 3}, {"kind": Kind.HELLO}, {"runs": ()}, {"codec": 1}],
)
def test_an_invalid_frame_is_not_sent(receiver: Receiver, sender: Sender, changes: dict[str, object]) -> None:
    with pytest.raises(TransportError):
        sender.send(tokens(5)._replace(**changes), WAIT_S)
    sender.send(tokens(6), WAIT_S)
    assert receiver.recv(WAIT_S) == tokens(6)


def test_a_frame_knows_when_it_arrived(receiver: Receiver, sender: Sender) -> None:
    times = [time.monotonic_ns()]
    for step in range(3):
        sender.send(tokens(step), WAIT_S)
        receiver.recv(WAIT_S)
        times.append(receiver.arrived_ns)
    assert times == sorted(times)
    assert times[-1] <= time.monotonic_ns()


@pytest.mark.parametrize("spin_us", [0, 10_000])
def test_waiting_busily_gives_the_same_frames(spin_us: int) -> None:
    with closing(open_receiver("127.0.0.1", 0, "w1#00", spin_us=spin_us)) as receiver:
        with closing(connect([receiver.address], "w1#00", timeout_s=WAIT_S)) as sender:
            for step in range(100):
                sender.send(tokens(step), WAIT_S)
                assert receiver.recv(WAIT_S) == tokens(step)
        with pytest.raises(TimeoutError):
            receiver.recv(0.01)


def test_a_greeting_from_a_sender_is_refused(receiver: Receiver) -> None:
    with closing(raw_connection(receiver)) as attacker:
        attacker.sendall(pack(Frame(kind=Kind.HELLO, payload=b"w2")))
        until(lambda: len(receiver.rejected) == 1)


def test_a_frame_in_single_bytes_and_several_at_once(receiver: Receiver) -> None:
    with closing(raw_connection(receiver)) as slow:
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in GOLDEN:
            slow.sendall(bytes([byte]))
        assert receiver.recv(WAIT_S) == unpack(GOLDEN)
        slow.sendall(GOLDEN * 10 + GOLDEN[:50])
        assert [receiver.recv(WAIT_S) for _ in range(10)] == [unpack(GOLDEN)] * 10
        slow.sendall(GOLDEN[50:])
        assert receiver.recv(WAIT_S) == unpack(GOLDEN)


def test_a_sender_that_goes_is_noted_as_departed(receiver: Receiver, sender: Sender) -> None:
    sender.send(tokens(1), WAIT_S)
    receiver.recv(WAIT_S)
    sender.close()
    until(lambda: len(receiver.departed) == 1)
    assert "after 1 frames" in receiver.departed[0]
    assert (receiver.peers, receiver.rejected) == (0, ())


def test_a_receiver_that_goes_breaks_the_link(receiver: Receiver, sender: Sender) -> None:
    sender.send(tokens(0), WAIT_S)
    receiver.recv(WAIT_S)
    receiver.close()
    with pytest.raises(TransportError, match=receiver.address):
        until(lambda: sender.send(tokens(1), WAIT_S) is not None)


def test_closing_wakes_whoever_receives(receiver: Receiver) -> None:
    caught: list[Exception] = []
    started = threading.Event()

    def receive() -> None:
        started.set()
        try:
            receiver.recv(WAIT_S)
        except TransportError as error:
            caught.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    started.wait(WAIT_S)
    receiver.close()
    thread.join(WAIT_S)
    assert len(caught) == 1


def test_closed_ends_say_so(receiver: Receiver, sender: Sender) -> None:
    sender.close()
    receiver.close()
    with pytest.raises(TransportError, match="closed"):
        sender.send(tokens(1), 0.1)
    with pytest.raises(TransportError, match="closed"):
        receiver.recv(0.1)
    sender.close()
    receiver.close()


@pytest.mark.parametrize("native", [True, False])
def test_the_first_address_where_the_right_one_answers_is_taken(receiver: Receiver, native: bool) -> None:
    with closing(open_receiver("127.0.0.1", 0, "w2#11")) as other:
        addresses = ["127.0.0.1:1", "nonsense", other.address, receiver.address]
        with closing(connect(addresses, "w1#00", timeout_s=WAIT_S, native=native)) as sender:
            assert sender.address == receiver.address
            sender.send(tokens(5), WAIT_S)
            assert receiver.recv(WAIT_S).step == 5


def test_no_right_answer_names_every_reason(receiver: Receiver) -> None:
    with pytest.raises(TransportError) as caught:
        connect(["127.0.0.1:1", receiver.address], "w9#99", timeout_s=WAIT_S)
    assert "w9#99 is not reached (127.0.0.1:1: " in str(caught.value)
    assert "refused" in str(caught.value)
    assert f"{receiver.address}: w1#00 answers there" in str(caught.value)


def test_something_else_on_the_port_is_no_worker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(TransportError, match="timed out"):  # it accepts and says nothing
            connect([address], "w1", timeout_s=0.2)
        thread = threading.Thread(target=lambda: _greet_badly(server))
        thread.start()
        with pytest.raises(TransportError, match="no Hyperlane peer"):
            connect([address], "w1", timeout_s=WAIT_S)
        thread.join()


def _greet_badly(server: socket.socket) -> None:
    server.accept()[0].close()  # the one that timed out
    connection, _ = server.accept()
    connection.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n" * 3)
    connection.close()


def test_a_port_in_use_is_an_error_of_the_configuration(receiver: Receiver) -> None:
    port = int(receiver.address.rsplit(":", 1)[1])
    with pytest.raises(ConfigError, match=f"127.0.0.1:{port}.*in use"):
        open_receiver("127.0.0.1", port, "w2")


def test_without_the_extension_the_python_link_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "extension", lambda: None)
    with (
        pytest.warns(RuntimeWarning, match="_native is not built"),
        closing(open_receiver("127.0.0.1", 0, "w1")) as receiver,
    ):
        assert type(receiver).__name__ == "PythonReceiver"


def test_payloads_are_taken_without_a_copy() -> None:
    import torch

    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    tensor = torch.arange(6, dtype=torch.float32)
    for source, change in ((array, lambda: array.fill(7)), (tensor, lambda: tensor.fill_(7))):
        view = payload_of(source)
        change()
        assert set(np.frombuffer(view, array.dtype if source is array else np.float32).tolist()) == {7.0}
    with pytest.raises(ValueError, match="not contiguous"):
        payload_of(array.T)


def test_a_payload_is_held_until_sent_and_no_longer(receiver: Receiver) -> None:
    with closing(connect([receiver.address], "w1#00", timeout_s=WAIT_S)) as sender:
        ids = np.arange(200000, dtype=np.int32)
        before = sys.getrefcount(ids)
        runs = tuple(Run(0, 0, 0, 50000) for _ in range(4))
        frame = Frame(kind=Kind.TOKENS, rows=200000, width=1, runs=runs, payload=ids.data.cast("B"))
        sender.send(frame, WAIT_S)
        del frame
        assert receiver.recv(WAIT_S).rows == 200000
        sender.flush(WAIT_S)
        assert sys.getrefcount(ids) == before


def test_received_payloads_stay_valid_and_aligned(receiver: Receiver, sender: Sender) -> None:
    kept = []
    for step in range(12):
        sender.send(tokens(step, 5000), WAIT_S)
        kept.append(np.frombuffer(receiver.recv(WAIT_S).payload, np.int32))
    for step, ids in enumerate(kept):
        assert (ids == step).all()
    if "Native" in type(receiver).__name__:
        assert all(ids.ctypes.data % 64 == 0 for ids in kept)
