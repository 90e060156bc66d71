"""Workers that answer on loopback: real gRPC, a data port that only listens."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hyperlane.control.service import ControlServer
from tests.worker.fakes import Workshop

Start = Callable[..., int]


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Start]:
    """`start_worker(name)` gives the control port of a new worker."""
    with ExitStack() as stack:
        workshop = Workshop(tmp_path)

        def start(name: str, host: str = "127.0.0.1", **changes: Any) -> int:
            data = stack.enter_context(socket.create_server((host, 0)))
            server = ControlServer(host, 0)
            stack.callback(server.close, 0.0)
            changes.setdefault("data_port", data.getsockname()[1])
            server.start(workshop.worker(name, **changes))
            return server.port

        yield start
