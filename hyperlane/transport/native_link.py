"""The C++ link (csrc/transport) behind the Protocols of link.py."""

import socket
from importlib import import_module
from typing import Any, cast

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
