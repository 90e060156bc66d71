"""Decode steps past Python: from frame to call to frame in C++ (csrc/transport/turn.cpp), Python only starts the call.

A plain step has one row a slot, each with an output, and its rows travel as they are. Pump's stages are the
specification; they do every other step, and the first of each number of rows.
"""

from hyperlane.errors import HyperlaneError
from hyperlane.timeline.record import StepRecord
from hyperlane.transport.frame import Frame, Kind
from hyperlane.transport.link import Receiver, Sender
from hyperlane.transport.native_link import NativeReceiver, NativeSender, NativeTurn
from hyperlane.worker.decode_call import DecodeCall
from hyperlane.worker.parts import Session
from hyperlane.worker.work import Work

RAW_ID = 0


class Turn:
    """The plain steps of one epoch. For one thread at a time, but `records` and `hidden_values`."""

    def __init__(self, native: NativeTurn, session: Session) -> None:
        self._native, self._session = native, session
        self._calls: dict[int, DecodeCall | None] = {}  # by rows

    def take(self, timeout_s: float) -> DecodeCall | Work:
        """The call of the next frame, whose inputs are written; or the frame, where it is no plain step. As `recv`."""
        call = self._calls.get(self._native.take(timeout_s))
        return self.give_up() if call is None else call

    def give_up(self) -> Work:
        """The frame that was taken."""
        return Work(*self._native.give_up())

    def send(self, timeout_s: float) -> None:
        """What the call gave; it has just run. As a sender's `send`."""
        self._native.send(timeout_s)

    def prepare(self, answer: Frame) -> None:
        """Have a call for steps as this one was, of which `answer` was sent."""
        rows = len(answer.runs)
        if rows in self._calls or not _is_plain(answer):
            return
        try:
            call = self._session.decode_call(rows)
        except HyperlaneError:  # no memory for it, say: that many rows stay Python's
            call = None
        self._calls[rows] = call
        if call is not None:
            self._native.add(call.rows, call.positions, call.slots, call.outputs, call.live, call.context)

    def records(self) -> list[StepRecord]:
        return [StepRecord._make(fields) for fields in self._native.records()]

    @property
    def hidden_values(self) -> int:
        """How many numbers the hidden states had that were sent."""
        return self._native.hidden_values


def open_turn(receiver: Receiver, sender: Sender, session: Session, epoch: int, kept_records: int) -> Turn | None:
    """None where the links are not native."""
    if not isinstance(receiver, NativeReceiver) or not isinstance(sender, NativeSender):
        return None
    return Turn(NativeTurn(receiver, sender, epoch, kept_records), session)


def _is_plain(answer: Frame) -> bool:
    if answer.kind not in (Kind.HIDDEN, Kind.CANDIDATES) or answer.codec != RAW_ID or answer.flags:
        return False
    return all(run.count == run.outputs == 1 for run in answer.runs)
