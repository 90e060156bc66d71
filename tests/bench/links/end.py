"""One end of a connection between two processes, as the link bench drives it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Report = Callable[[str], None]
"""Tells the other process where to connect to."""


class End(Protocol):
    """Ping meets pong at the other end, push meets drain; both are told the size and count of messages."""

    def ping(self, size: int, count: int) -> list[float]:
        """The time of each round trip in seconds."""

    def pong(self, size: int, count: int) -> None: ...

    def push(self, size: int, count: int) -> float:
        """Bytes a second, until the other end has taken the last one in."""

    def drain(self, size: int, count: int) -> None: ...


class Transport(Protocol):
    """How both ends are made; `listen` reports its address before it waits for the other one."""

    name: str

    def listen(self, report: Report) -> End: ...

    def connect(self, address: str) -> End: ...


class Messages(Protocol):
    """Anything that carries whole messages both ways."""

    def send(self, data: memoryview) -> None: ...

    def recv(self, size: int) -> None:
        """Take in the next message, of `size` bytes."""


ACK_BYTES = 64


@dataclass(frozen=True, slots=True)
class Loops:
    """The End of messages that go through Python one by one."""

    messages: Messages

    def ping(self, size: int, count: int) -> list[float]:
        data, times_s = memoryview(bytes(size)), []
        for _ in range(count):
            start_s = time.perf_counter()
            self.messages.send(data)
            self.messages.recv(size)
            times_s.append(time.perf_counter() - start_s)
        return times_s

    def pong(self, size: int, count: int) -> None:
        data = memoryview(bytes(size))
        for _ in range(count):
            self.messages.recv(size)
            self.messages.send(data)

    def push(self, size: int, count: int) -> float:
        data = memoryview(bytes(size))
        start_s = time.perf_counter()
        for _ in range(count):
            self.messages.send(data)
        self.messages.recv(ACK_BYTES)
        return size * count / (time.perf_counter() - start_s)

    def drain(self, size: int, count: int) -> None:
        for _ in range(count):
            self.messages.recv(size)
        self.messages.send(memoryview(bytes(ACK_BYTES)))
