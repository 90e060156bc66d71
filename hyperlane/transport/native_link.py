"""The C++ link (csrc/transport) behind the Protocols of link.py."""

import socket
from importlib import import_module
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import TransportError
from hyperlane.transport.answer import Answer, Answered, send_reply
from hyperlane.transport.frame import Frame, Kind, Run

_TYPES = (Frame, Run, tuple(Kind))  # what the extension makes frames of


class NativeSender:
    def __init__(self, connection: socket.socket, address: str, queue_depth: int) -> None:
        self.address = address
        connection.setblocking(False)
        self._sender = import_module("hyperlane._native").Sender(connection.detach(), queue_depth)
        self._handle = 0

    @property
    def frames(self) -> int:
        return int(self._sender.frames)

    @property
    def wire_bytes(self) -> int:
        return int(self._sender.wire_bytes)

    def send(self, frame: Frame, timeout_s: float) -> None:
        try:
            self._handle = self._sender.submit(frame, timeout_s)
        except ValueError as error:
            raise TransportError(f"step {frame.step} is no valid frame: {error}") from error
        except ConnectionError as error:
            raise TransportError(f"the link to {self.address} is broken: {error}") from error

    def prepared(self, answer: Answer) -> Any:
        """What a native receiver sends by itself."""
        module, frame = import_module("hyperlane._native"), answer.frame
        return module.Answer(self._sender, answer.step, frame, frame.rows, list(answer.stop_ids))

    def flush(self, timeout_s: float) -> None:
        try:
            self._sender.wait(self._handle, timeout_s)
        except ConnectionError as error:
            raise TransportError(f"the link to {self.address} is broken: {error}") from error

    def close(self) -> None:
        self._sender.close()


class NativeReceiver:
    def __init__(
        self,
        listener: socket.socket,
        address: str,
        greeting: bytes,
        queue_depth: int,
        max_frame_bytes: int,
        spin_us: int,
    ) -> None:
        self.address = address
        self.arrived_ns = 0
        self.answered: Answered | None = None
        listener.setblocking(False)
        module = import_module("hyperlane._native")
        self._receiver = module.Receiver(listener.detach(), greeting, queue_depth, max_frame_bytes, spin_us)

    @property
    def frames(self) -> int:
        return int(self._receiver.frames)

    @property
    def wire_bytes(self) -> int:
        return int(self._receiver.wire_bytes)

    @property
    def peers(self) -> int:
        return int(self._receiver.peers)

    @property
    def rejected(self) -> tuple[str, ...]:
        return tuple(self._receiver.rejected)

    @property
    def departed(self) -> tuple[str, ...]:
        return tuple(self._receiver.departed)

    def recv(self, timeout_s: float, answer: Answer | None = None) -> Frame:
        prepared = None
        if answer is not None and isinstance(answer.sender, NativeSender):
            prepared = answer.sender.prepared(answer)
        try:
            frame, self.arrived_ns, tokens, *times_ns = self._receiver.recv(timeout_s, _TYPES, prepared)
        except ConnectionError as error:
            raise TransportError(f"the data port {self.address} is closed") from error
        self.answered = Answered(tokens, *times_ns) if tokens else None
        if answer is not None and prepared is None:
            self.answered = send_reply(answer, frame)
        return cast(Frame, frame)

    def ready(self) -> bool:
        return bool(self._receiver.ready())

    def close(self) -> None:
        self._receiver.close()


class NativeTurn:
    """Takes the decode steps of an epoch from their frames to their calls' memory, and on to the next frames.

    It knows calls of one row a slot (hyperlane/worker/decode_call.py), which it is given one a number of rows; rows
    travel as they are. Every other frame is given up to Python.
    """

    def __init__(self, receiver: NativeReceiver, sender: NativeSender, epoch: int, kept_records: int) -> None:
        self._receiver, self._sender = receiver, sender
        module = import_module("hyperlane._native")
        self._turn = module.Turn(receiver._receiver, sender._sender, epoch, kept_records)

    def add(
        self,
        rows: NDArray[Any],
        positions: NDArray[np.int64],
        slots: NDArray[np.int64],
        outputs: tuple[NDArray[Any], ...],
        live: NDArray[np.int64],
        context: int,
    ) -> None:
        """The memory of a call; `live` and `context` are the session's, the same for all of its calls."""
        self._turn.add(rows, positions, slots, outputs, live, context)

    def take(self, timeout_s: float) -> int:
        """Wait for a frame: the rows of the call whose inputs it became, or 0 where it has to be given up.

        Raises TimeoutError, and TransportError once closed.
        """
        try:
            return int(self._turn.take(timeout_s))
        except ConnectionError as error:
            raise TransportError(f"the data port {self._receiver.address} is closed") from error

    def give_up(self) -> tuple[Frame, int, int]:
        """The frame that was taken, when it had come and when it was taken."""
        frame, arrived_ns, taken_ns = self._turn.give_up(_TYPES)
        return cast(Frame, frame), arrived_ns, taken_ns

    def send(self, timeout_s: float) -> None:
        """The outputs of the call, which has run, to the next of the chain. Raises as a sender's `send`."""
        try:
            self._turn.send(timeout_s)
        except ConnectionError as error:
            raise TransportError(f"the link to {self._sender.address} is broken: {error}") from error

    def records(self) -> list[tuple[Any, ...]]:
        """The latest steps, as the fields of a StepRecord."""
        return list(self._turn.records())

    @property
    def hidden_values(self) -> int:
        """How many numbers the hidden states had that were sent."""
        return int(self._turn.hidden_values)
