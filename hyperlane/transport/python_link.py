"""The link without the extension: the same Protocols and the same bytes, by threads and blocking sockets."""

import select
import socket
import struct
import time
from collections import deque
from contextlib import suppress
from threading import Lock, Thread

import numpy as np

from hyperlane.errors import TransportError, one_line
from hyperlane.transport.answer import Answer, Answered, send_reply
from hyperlane.transport.crc32c import crc32c
from hyperlane.transport.frame import HEADER_BYTES, Frame, Kind, pack_prefix, unpack, unpack_header
from hyperlane.transport.mailbox import Mailbox

_KEPT_REASONS = 64
_MAX_CONNECTIONS = 64


class PythonSender:
    def __init__(self, connection: socket.socket, address: str, queue_depth: int) -> None:
        self.address = address
        self.frames = 0
        self.wire_bytes = 0
        connection.settimeout(None)
        self._connection = connection
        self._is_closed = False
        self._queue: Mailbox[tuple[bytes, bytes | memoryview]] = Mailbox(queue_depth)
        self._thread = Thread(target=self._run, name="hyperlane-sender", daemon=True)
        self._thread.start()

    def send(self, frame: Frame, timeout_s: float) -> None:
        prefix = pack_prefix(frame)
        if not self._is_closed and _is_readable(
            self._connection
        ):  # the other end is silent after its greeting: this is its end
            self._queue.close(f"the link to {self.address} is broken: the receiver closed it")
        self._queue.put((prefix, frame.payload), timeout_s)

    def flush(self, timeout_s: float) -> None:
        self._queue.wait_empty(timeout_s)

    def close(self) -> None:
        self._is_closed = True
        self._queue.close(f"the link to {self.address} is closed")
        _shut(self._connection)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        try:
            while True:
                self._send_first()
        except OSError as error:
            self._queue.close(f"the link to {self.address} is broken: {one_line(error)}")
        except TransportError:
            return  # closed

    def _send_first(self) -> None:
        prefix, payload = self._queue.first(timeout_s=None)
        body = prefix + bytes(payload)
        self._connection.sendall(body + struct.pack("<I", crc32c(body)))
        self.frames += 1
        self.wire_bytes += len(body) + 4
        self._queue.drop_first()


class PythonReceiver:
    def __init__(
        self,
        listener: socket.socket,
        address: str,
        greeting: bytes,
        queue_depth: int,
        max_frame_bytes: int,
    ) -> None:
        self.address = address
        self.frames = 0
        self.wire_bytes = 0
        self._listener = listener
        self._greeting = greeting
        self._max_frame_bytes = max_frame_bytes
        self.arrived_ns = 0
        self.answered: Answered | None = None
        self._queue: Mailbox[tuple[Frame, int]] = Mailbox(queue_depth)
        self._lock = Lock()
        self._connections: dict[socket.socket, int] = {}  # frames of each
        self._rejected: deque[str] = deque(maxlen=_KEPT_REASONS)
        self._departed: deque[str] = deque(maxlen=_KEPT_REASONS)
        self._thread = Thread(target=self._accept, name="hyperlane-receiver", daemon=True)
        self._thread.start()

    @property
    def peers(self) -> int:
        return len(self._connections)

    @property
    def rejected(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._rejected)

    @property
    def departed(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._departed)

    def recv(self, timeout_s: float, answer: Answer | None = None) -> Frame:
        frame, self.arrived_ns = self._queue.take(timeout_s)
        self.answered = None if answer is None else send_reply(answer, frame)
        return frame

    def ready(self) -> bool:
        return self._queue.holds_any

    def close(self) -> None:
        self._queue.close(f"the data port {self.address} is closed")
        _shut(self._listener)
        self._thread.join()
        self._listener.close()
        with self._lock:
            for connection in self._connections:
                _shut(connection)

    def _accept(self) -> None:
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return  # closed
            with self._lock:
                self._make_place()
                self._connections[connection] = 0
            Thread(target=self._serve, args=(connection, f"{peer[0]}:{peer[1]}"), daemon=True).start()

    def _make_place(self) -> None:
        """Connections that never sent a frame do not shut out those that will."""
        idle = [connection for connection, frames in self._connections.items() if frames == 0]
        if len(self._connections) >= _MAX_CONNECTIONS and idle:
            del self._connections[idle[0]]  # at once: its thread may not get to run before the next one arrives
            _shut(idle[0])

    def _serve(self, connection: socket.socket, peer: str) -> None:
        count, fault = 0, ""
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(self._greeting)
            while (frame := self._read_frame(connection)) is not None:
                count += 1
                self._note(connection, count)
                self._queue.put((frame, time.monotonic_ns()), timeout_s=None)
        except (OSError, TransportError) as error:
            fault = one_line(error)
        self._end(connection, f"connection from {peer} after {count} frames", fault, delivered=count > 0)

    def _note(self, connection: socket.socket, count: int) -> None:
        with self._lock:
            if connection in self._connections:
                self._connections[connection] = count

    def _read_frame(self, connection: socket.socket) -> Frame | None:
        head = _read(connection, HEADER_BYTES)
        if head is None:
            return None
        frame_bytes = unpack_header(head, max_frame_bytes=self._max_frame_bytes).frame_bytes
        rest = _read(connection, frame_bytes - HEADER_BYTES)
        if rest is None:
            raise TransportError("it ended in the middle of a frame")
        frame = unpack(np.concatenate([head, rest]).data)
        if frame.kind == Kind.HELLO:
            raise TransportError("it sent a greeting, which only a receiver does")
        with self._lock:
            self.frames += 1
            self.wire_bytes += frame_bytes
        return frame

    def _end(self, connection: socket.socket, who: str, fault: str, *, delivered: bool) -> None:
        with self._lock:
            self._connections.pop(connection, None)
            if fault:
                self._rejected.append(f"{who}: {fault}")
            if delivered:
                self._departed.append(f"{who}: {fault or 'the sender closed it'}")
        connection.close()


def _read(connection: socket.socket, count: int) -> memoryview | None:
    """Exactly `count` bytes, or None where the stream ends before the first. Raises TransportError in between."""
    data = np.empty(count, np.uint8).data  # reserved, not touched: a peer may announce more than it sends
    filled = 0
    while filled < count:
        got = connection.recv_into(data[filled:])
        if got == 0 and filled == 0:
            return None
        if got == 0:
            raise TransportError("it ended in the middle of a frame")
        filled += got
    return data


def _is_readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # it may not be connected any more
        connection.shutdown(socket.SHUT_RDWR)
