"""How fast the path to another worker is: a plain TCP connection to a sink that it opens, apart from the data links.

The source first sends single bytes, each answered by one: twice the latency. Then a length and so many bytes, answered
by one byte when all are there; ever longer, until that takes long enough to be timed.
"""

import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from hyperlane.control.client import ControlClient
from hyperlane.control.types import PathSpeed
from hyperlane.errors import TransportError, one_line

CONNECT_TIMEOUT_S, TIMEOUT_S = 5.0, 30.0
PINGS = 15
FIRST_BYTES, MOST_BYTES = 32 << 10, 32 << 20
LONG_ENOUGH_S = 0.06
PIECE_BYTES = 1 << 20
_LENGTH = struct.Struct("<Q")
_PING, _BULK = b"p", b"b"


def measure_path(control_address: str, data_addresses: Sequence[str]) -> PathSpeed:
    """From here to the worker with these addresses; TransportError where none of them can be reached."""
    with ControlClient(control_address, "to measure the path to") as target:
        port = target.open_sink().result()
    hosts = dict.fromkeys(address.rpartition(":")[0].strip("[]") for address in data_addresses)
    failures = []
    for host in hosts:
        try:
            with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S) as connection:
                connection.settimeout(TIMEOUT_S)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                latency_s = _latency_s(connection)
                bytes_per_s, burst_bytes = _rate(connection, latency_s)
                return PathSpeed(bytes_per_s=bytes_per_s, latency_s=latency_s, burst_bytes=burst_bytes)
        except OSError as error:
            failures.append(f"{host}:{port}: {one_line(error)}")
    raise TransportError(f"no path to the worker at {control_address}: {'; '.join(failures)}; check its firewall")


def open_sink(hosts: Sequence[str]) -> int:
    """A port that serves one `measure_path`, in a thread that ends with it or after a while."""
    server = socket.create_server((hosts[0] if len(hosts) == 1 else "", 0))
    server.settimeout(CONNECT_TIMEOUT_S)
    threading.Thread(target=_serve, args=(server, set(hosts)), name="sink", daemon=True).start()
    return int(server.getsockname()[1])


def _latency_s(connection: socket.socket) -> float:
    """Half of the median round trip; the first one warms the path up."""
    trips_s = []
    for _ in range(PINGS + 1):
        begin_s = time.perf_counter()
        connection.sendall(_PING)
        _receive(connection, 1)
        trips_s.append(time.perf_counter() - begin_s)
    return sorted(trips_s[1:])[PINGS // 2] / 2


def _rate(connection: socket.socket, latency_s: float) -> tuple[float, float]:
    """Bytes per second, and the bytes that went at once in the beginning: token buckets and queues let some pass."""
    size, first_s = FIRST_BYTES, 0.0
    while True:
        begin_s = time.perf_counter()
        connection.sendall(_BULK + _LENGTH.pack(size))
        piece = bytes(min(size, PIECE_BYTES))
        for _ in range(size // len(piece)):
            connection.sendall(piece)
        _receive(connection, 1)
        elapsed_s = time.perf_counter() - begin_s - 2 * latency_s
        if size > FIRST_BYTES and (elapsed_s >= LONG_ENOUGH_S or size >= MOST_BYTES):
            bytes_per_s = size / max(elapsed_s, 1e-9)
            return bytes_per_s, min(max(0.0, FIRST_BYTES - first_s * bytes_per_s), FIRST_BYTES)
        first_s = first_s or elapsed_s
        size *= 4


def _serve(server: socket.socket, hosts: set[str]) -> None:
    with suppress(OSError), server:
        connection, _ = server.accept()
        with connection:
            if connection.getsockname()[0] not in hosts:  # reached at an address that this worker does not offer
                return
            connection.settimeout(TIMEOUT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while kind := connection.recv(1):
                if kind == _BULK:
                    (size,) = _LENGTH.unpack(_receive(connection, _LENGTH.size))
                    _receive(connection, min(size, MOST_BYTES))
                connection.sendall(kind)


def _receive(connection: socket.socket, count: int) -> bytes:
    """Exactly so many bytes; of many only the last ones are kept."""
    left, kept = count, b""
    while left:
        piece = connection.recv(min(left, PIECE_BYTES))
        if not piece:
            raise OSError("the other end closed the connection")
        left -= len(piece)
        kept = (kept + piece)[-16:] if count <= 16 else piece[-1:]
    return kept
