"""The double of a shortcut: a ring in memory that two processes of one host share; rows are NumPy arrays."""

import mmap
import os
import secrets
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import TransportError
from hyperlane.transport.door import Door, Visit, knock
from hyperlane.transport.frame import Frame
from hyperlane.transport.shortcut import read_ticket, ticket

PLACES, PLACE_BYTES = 4, 1 << 12
PLACED, TAKEN = 0, 1
WAIT_S = 10.0


class MemoryShortcut:
    name = "memory"

    def __init__(self, identity: str, dtype: str) -> None:
        self._turn, self._visit = 0, knock(identity)
        try:
            self._visit.say({"rows": dtype})
            answer, (fd,) = self._visit.hear()
        except TransportError:
            self._visit.close()
            raise
        self._ring = _Ring(answer["ring"], fd)

    def place(self, rows: NDArray[Any], timeout_s: float) -> bytes | None:
        if rows.nbytes > PLACE_BYTES:
            return None
        self._turn += 1
        until_s = time.monotonic() + timeout_s
        while self._ring.counters[TAKEN] < max(self._turn - PLACES, 0):
            if self._visit.ended:
                raise TransportError("the next worker let go of the shortcut")
            if time.monotonic() > until_s:
                raise TimeoutError("no place got free")
        self._ring.place(self._turn)[: rows.nbytes] = rows.reshape(-1).view(np.uint8)
        self._ring.counters[PLACED] = self._turn
        return ticket(self._ring.number, self._turn)

    def close(self) -> None:
        self._visit.close()


class MemoryLanding:
    def __init__(self, identity: str, dtype: str) -> None:
        self._dtype = np.dtype(dtype)
        self._rings: dict[int, _Ring] = {}
        self._door = Door(identity, self._serve)

    def rows(self, frame: Frame) -> NDArray[Any]:
        number, turn = read_ticket(frame)
        until_s = time.monotonic() + WAIT_S
        while True:
            ring = self._rings.get(number)
            if ring is None or time.monotonic() > until_s:
                raise TransportError(f"step {frame.step} lies in ring {number:x}, which is closed")
            if ring.counters[PLACED] >= turn:
                break
        rows = ring.place(turn)[: frame.rows * frame.width * self._dtype.itemsize].view(self._dtype).copy()
        ring.counters[TAKEN] = turn
        return rows.reshape(frame.rows, frame.width)

    def close(self) -> None:
        self._door.close()

    def _serve(self, visit: Visit) -> None:
        offer, _ = visit.hear()
        if offer["rows"] != self._dtype.name:
            raise TransportError(f"rows of {offer['rows']} where {self._dtype.name} belongs")
        fd = os.memfd_create("ring")
        os.ftruncate(fd, mmap.PAGESIZE + PLACES * PLACE_BYTES)
        ring = _Ring(secrets.randbits(63), os.dup(fd))
        self._rings[ring.number] = ring
        try:
            visit.say({"ring": ring.number}, [fd])
            visit.wait_for_end()
        finally:
            os.close(fd)
            del self._rings[ring.number]


@dataclass
class _Ring:
    number: int
    fd: int

    def __post_init__(self) -> None:
        self._bytes = np.frombuffer(mmap.mmap(self.fd, mmap.PAGESIZE + PLACES * PLACE_BYTES), np.uint8)
        os.close(self.fd)
        self.counters = self._bytes[:16].view(np.uint64)

    def place(self, turn: int) -> NDArray[np.uint8]:
        return self._bytes[mmap.PAGESIZE + turn % PLACES * PLACE_BYTES :][:PLACE_BYTES]
