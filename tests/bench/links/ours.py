"""Our link as workers use it: frames from Python, the C++ sender and receiver; one link each way."""

from dataclasses import dataclass

from hyperlane.transport.frame import Frame, Kind, Run
from hyperlane.transport.link import Receiver, Sender, connect, open_receiver
from tests.bench.links.end import Loops, Report

WAIT_S = 30.0
IDENTITY = "bench"


@dataclass(frozen=True, slots=True)
class _Frames:
    receiver: Receiver
    sender: Sender

    def send(self, data: memoryview) -> None:
        # Raw rows, as a worker would send them; the bench's sizes are whole numbers of values.
        width = len(data) // 4
        self.sender.send(Frame(kind=Kind.HIDDEN, rows=1, width=width, runs=(Run(0, 1, 0, 1),), payload=data), WAIT_S)

    def recv(self, size: int) -> None:
        assert len(self.receiver.recv(WAIT_S).payload) == size


class Ours:
    name = "ours"

    def listen(self, report: Report) -> Loops:
        receiver = _receiver()
        report(receiver.address)
        back = bytes(receiver.recv(WAIT_S).payload).decode().strip()
        return Loops(_Frames(receiver, connect([back], IDENTITY, timeout_s=WAIT_S)))

    def connect(self, address: str) -> Loops:
        frames = _Frames(_receiver(), connect([address], IDENTITY, timeout_s=WAIT_S))
        frames.send(memoryview(frames.receiver.address.ljust(64).encode()))
        return Loops(frames)


def _receiver() -> Receiver:
    return open_receiver("127.0.0.1", 0, IDENTITY)
