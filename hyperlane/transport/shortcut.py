"""Hidden rows from one worker to the next without a socket, where both can reach the same memory.

The rows go into a ring of places at the receiving end; a PLACED frame travels over the TCP link in their stead, so that
order, epochs and backpressure stay as they are. Its payload, the ticket, says which ring and which turn.

A way is a sending and a receiving end in one file: hyperlane/worker/cuda_ring.py between GPUs of one host. The rows of
the two ends are what the file says, `Rows` here.
"""

import struct
from typing import Any, Protocol

from hyperlane.errors import TransportError
from hyperlane.transport.frame import TICKET_BYTES, Frame, Kind

Rows = Any
_TICKET = struct.Struct("<QQ")
assert _TICKET.size == TICKET_BYTES


class Shortcut(Protocol):
    """The sending end, for one thread at a time."""

    @property
    def name(self) -> str:
        """As the run's table shows it."""

    def place(self, rows: Rows, timeout_s: float) -> bytes | None:
        """Leave rows [R, D] in the next place; the ticket for it, or None where a place has no room for so many.

        They may still be under way. TimeoutError where no place gets free, TransportError where the other end is gone.
        """

    def close(self) -> None:
        """Let go of the ring; the other end does, too."""


class Landing(Protocol):
    """The receiving end, whose rings are opened by those who send."""

    def rows(self, frame: Frame) -> Rows:
        """The rows of a PLACED frame; its place is free from then on. TransportError for a ticket of no open ring."""

    def close(self) -> None:
        """Let go of all rings."""


def ticket(ring: int, turn: int) -> bytes:
    """turn: 1 for the first rows that the ring takes, then 2, ..."""
    return _TICKET.pack(ring, turn)


def read_ticket(frame: Frame) -> tuple[int, int]:
    """Ring and turn of a PLACED frame."""
    if frame.kind != Kind.PLACED:
        raise TransportError(f"a frame of kind {frame.kind} carries no ticket")
    ring, turn = _TICKET.unpack(frame.payload)
    return ring, turn
