"""Data links: `open_receiver` where frames arrive, `connect` where they leave.

A receiver takes any number of connections and greets each with its identity; the connecting side checks that it
reached whom it meant, as another machine may answer at the same address.
"""

import socket
import time
import warnings
from collections.abc import Sequence
from typing import Protocol

from hyperlane.errors import ConfigError, TransportError, one_line
from hyperlane.transport import native_link, python_link
from hyperlane.transport.answer import Answer, Answered
from hyperlane.transport.frame import CRC_BYTES, HEADER_BYTES, MAX_TEXT_BYTES, Frame, Kind, pack, unpack, unpack_header
from hyperlane.transport.native import extension

MAX_FRAME_BYTES = 256 << 20
SPIN_US = 100


class Sender(Protocol):
    """The sending end of a link, for one thread at a time."""

    @property
    def address(self) -> str:
        """Where it is connected to, "host:port"."""

    @property
    def frames(self) -> int:
        """Frames handed to the kernel."""

    @property
    def wire_bytes(self) -> int:
        """Their bytes, everything counted."""

    def send(self, frame: Frame, timeout_s: float) -> None:
        """Queue a frame; its payload must not change until `flush`. Waits while the queue is full.

        Raises TimeoutError where it stays full (the frame is not queued), TransportError where the link is broken.
        """

    def flush(self, timeout_s: float) -> None:
        """Wait until every frame is in the kernel's hands. Raises as `send`."""

    def close(self) -> None:
        """Close at once; what is queued is dropped."""


class Receiver(Protocol):
    """Where frames arrive. Bad connections are closed and noted in `rejected`; the others go on."""

    @property
    def address(self) -> str:
        """Where it listens, "host:port"."""

    @property
    def frames(self) -> int:
        """Frames received."""

    @property
    def wire_bytes(self) -> int:
        """Their bytes, everything counted."""

    @property
    def peers(self) -> int:
        """Open connections."""

    @property
    def rejected(self) -> tuple[str, ...]:
        """Why connections were cut, one line each, the latest last: garbage, a wrong checksum, a frame too long."""

    @property
    def departed(self) -> tuple[str, ...]:
        """Connections that had delivered frames and are gone, one line each: how a reader learns of a lost sender."""

    @property
    def arrived_ns(self) -> int:
        """When the frame that `recv` gave last had come as a whole, on the clock of `time.monotonic_ns`."""

    @property
    def answered(self) -> Answered | None:
        """The answer to that frame; None where none was sent."""

    def recv(self, timeout_s: float, answer: Answer | None = None) -> Frame:
        """The next frame of any connection. Raises TimeoutError, and TransportError once closed.

        answer: sent at once where that frame is what it answers, and its link has room.
        """

    def ready(self) -> bool:
        """Whether `recv` has a frame without waiting."""

    def close(self) -> None:
        """Close all connections at once."""


def open_receiver(
    host: str,
    port: int,
    identity: str,
    *,
    queue_depth: int = 8,
    max_frame_bytes: int = MAX_FRAME_BYTES,
    native: bool = True,
    spin_us: int = SPIN_US,
) -> Receiver:
    """Listen on `host`:`port` (0: a free one). Raises ConfigError where that address cannot be had.

    At most `queue_depth` frames wait to be received; then TCP slows the senders down. Where frames come within
    `spin_us` of one another, `recv` (of the native link) waits for so long busily before it sleeps.
    """
    greeting = pack(Frame(kind=Kind.HELLO, payload=identity.encode()))
    listener = _listen(host, port)
    address = _address(listener)
    if native and _has_extension():
        return native_link.NativeReceiver(listener, address, greeting, queue_depth, max_frame_bytes, spin_us)
    return python_link.PythonReceiver(listener, address, greeting, queue_depth, max_frame_bytes)


def connect(
    addresses: Sequence[str], identity: str, *, timeout_s: float, queue_depth: int = 8, native: bool = True
) -> Sender:
    """Connect to the first of `addresses` ("host:port") where `identity` answers.

    Raises TransportError that says for each address why not, within about `timeout_s` in all.
    """
    deadline = time.monotonic() + timeout_s
    reasons = []
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        try:
            connection = _greeted(address, identity, (deadline - time.monotonic()) / left)
        except (OSError, TransportError) as error:
            reasons.append(f"{address}: {one_line(error)}")
            continue
        if native and _has_extension():
            return native_link.NativeSender(connection, address, queue_depth)
        return python_link.PythonSender(connection, address, queue_depth)
    raise TransportError(f"{identity} is not reached ({'; '.join(reasons) or 'it has no address'})")


def _has_extension() -> bool:
    if extension() is not None:
        return True
    warnings.warn(
        "hyperlane._native is not built: links and codecs run in Python, much slower; "
        "install a C++ compiler and run pip install --force-reinstall hyperlane",
        RuntimeWarning,
        stacklevel=3,
    )
    return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=_family(host), backlog=64)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {one_line(error)}; choose another address") from error


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _greeted(address: str, identity: str, timeout_s: float) -> socket.socket:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise TransportError("this is no host:port")
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=max(timeout_s, 0.01))
    try:
        found = _read_greeting(connection)
        if found != identity:
            raise TransportError(f"{found} answers there")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection


def _read_greeting(connection: socket.socket) -> str:
    limit = HEADER_BYTES + MAX_TEXT_BYTES + CRC_BYTES
    head = _read_exactly(connection, HEADER_BYTES)
    header = unpack_header(head, max_frame_bytes=limit)
    frame = unpack(head + _read_exactly(connection, header.frame_bytes - HEADER_BYTES))
    if frame.kind != Kind.HELLO:
        raise TransportError(f"a frame of kind {frame.kind} where a greeting was due")
    return frame.text


def _read_exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise TransportError("it closed the connection before its greeting; is this a Hyperlane data port?")
        data += part
    return data
