"""Raw TCP from Python: blocking sockets with TCP_NODELAY, no framing at all."""

import socket
from dataclasses import dataclass, field

from tests.bench.links.end import Loops, Report

MOST_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class _Bytes:
    connection: socket.socket
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(MOST_BYTES)))

    def send(self, data: memoryview) -> None:
        self.connection.sendall(data)

    def recv(self, size: int) -> None:
        filled = 0
        while filled < size:
            filled += self.connection.recv_into(self.buffer[filled:size])


class Tcp:
    name = "TCP (Python)"

    def listen(self, report: Report) -> Loops:
        return Loops(_Bytes(accepted(report)))

    def connect(self, address: str) -> Loops:
        return Loops(_Bytes(connected(address)))


def accepted(report: Report) -> socket.socket:
    """The one connection to a new port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        report(f"127.0.0.1:{server.getsockname()[1]}")
        return _undelayed(server.accept()[0])


def connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return _undelayed(socket.create_connection((host, int(port))))


def _undelayed(connection: socket.socket) -> socket.socket:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
