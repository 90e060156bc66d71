"""Workers that answer on loopback: real gRPC, a data port that only greets."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hyperlane.control.service import ControlServer
from hyperlane.transport.link import open_receiver
from tests.worker.fakes import Workshop

Start = Callable[..., int]


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Start]:
    """`start_worker(name)` gives the control port of a new worker."""
    with ExitStack() as stack:
        workshop = Workshop(tmp_path)

        def start(name: str, host: str = "127.0.0.1", **changes: Any) -> int:
            receiver = open_receiver(host, 0, f"{name}#01", native=False)
            stack.callback(receiver.close)
            server = ControlServer(host, 0)
            stack.callback(server.close, 0.0)
            changes.setdefault("data_port", int(receiver.address.rpartition(":")[2]))
            server.start(workshop.worker(name, **changes))
            return server.port

        yield start
