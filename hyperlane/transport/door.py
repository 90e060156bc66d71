"""Whether the next worker is on this host, and what two workers of one host say to each other to share memory.

A worker listens on a Unix socket in Linux's abstract namespace, named after its data port's identity. Who connects
there is on the same host and, as is checked, of the same user. Messages are JSON; file descriptors may come with them.
The connection stays open for as long as the memory is shared, and its end tells the other side.
"""

import hashlib
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from hyperlane.errors import TransportError, one_line

MOST_BYTES = 8192
MOST_FDS = 4
TIMEOUT_S = 5.0  # for one answer
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Visit:
    """One connection between two workers of this host."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(TIMEOUT_S)

    def say(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """TransportError where the other end is gone."""
        try:
            socket.send_fds(self._connection, [json.dumps(message).encode()], list(fds))
        except OSError as error:
            raise TransportError(f"the worker at the other end is gone: {one_line(error)}") from error

    def hear(self) -> tuple[dict[str, Any], list[int]]:
        """A message and what came with it. TransportError where none comes, or a refusal."""
        try:
            data, fds, _, _ = socket.recv_fds(self._connection, MOST_BYTES, MOST_FDS)
            message = json.loads(data) if data else None
        except (OSError, ValueError) as error:
            raise TransportError(f"no answer: {one_line(error)}") from error
        if not isinstance(message, dict) or "refused" in message:
            for fd in fds:
                os.close(fd)
            raise TransportError(str(message["refused"]) if isinstance(message, dict) else "it closed the connection")
        return message, fds

    def wait_for_end(self) -> None:
        """Until the other end lets go."""
        self._connection.settimeout(None)
        with suppress(OSError):
            while self._connection.recv(MOST_BYTES):
                pass

    @property
    def ended(self) -> bool:
        """Whether the other end let go."""
        try:
            readable, _, _ = select.select([self._connection], [], [], 0)
            return bool(readable) and not self._connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):  # ValueError: closed on this side
            return True

    def close(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class Door:
    """Where workers of this host knock; `serve` is called with each visit, in a thread of its own, until it ends."""

    def __init__(self, identity: str, serve: Callable[[Visit], None]) -> None:
        """TransportError where such a socket cannot be had."""
        self._serve = serve
        self._visits: set[Visit] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._listener.bind(_address(identity))
            self._listener.listen()
        except OSError as error:
            self._listener.close()
            raise TransportError(f"no Unix socket for shortcuts: {one_line(error)}") from error
        self._thread = threading.Thread(target=self._listen, name="door", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(TIMEOUT_S)
        for visit in tuple(self._visits):
            visit.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if _user(connection) != os.getuid():
                connection.close()
                continue
            threading.Thread(target=self._answer, args=(Visit(connection),), name="visit", daemon=True).start()

    def _answer(self, visit: Visit) -> None:
        self._visits.add(visit)
        try:
            self._serve(visit)
        except TransportError as error:
            with suppress(TransportError):
                visit.say({"refused": one_line(error)})
        finally:
            self._visits.discard(visit)
            visit.close()


def knock(identity: str) -> Visit:
    """A visit to the worker of that identity; TransportError where it is not on this host, or of another user."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(_address(identity))
        if _user(connection) != os.getuid():
            raise OSError("it is another user's")
    except OSError as error:
        connection.close()
        raise TransportError(f"{identity} is not on this host: {one_line(error)}") from error
    return Visit(connection)


def _address(identity: str) -> str:
    return "\0hyperlane-" + hashlib.sha256(identity.encode()).hexdigest()[:40]


def _user(connection: socket.socket) -> int:
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1])
