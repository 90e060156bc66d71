"""pyzmq: PAIR sockets over TCP, which is TCP_NODELAY by itself."""

from dataclasses import dataclass

import zmq

from tests.bench.links.end import Loops, Report


@dataclass(frozen=True, slots=True)
class _Pair:
    socket: "zmq.Socket[bytes]"

    def send(self, data: memoryview) -> None:
        self.socket.send(data, copy=len(data) < 1 << 16)

    def recv(self, size: int) -> None:
        assert len(self.socket.recv(copy=size < 1 << 16)) == size


class ZeroMq:
    name = "pyzmq"

    def listen(self, report: Report) -> Loops:
        pair = zmq.Context.instance().socket(zmq.PAIR)
        report(f"tcp://127.0.0.1:{pair.bind_to_random_port('tcp://127.0.0.1')}")
        return Loops(_Pair(pair))

    def connect(self, address: str) -> Loops:
        pair = zmq.Context.instance().socket(zmq.PAIR)
        pair.connect(address)
        return Loops(_Pair(pair))
