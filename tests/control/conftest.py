"""Workers with real gRPC in front and fake parts behind."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyperlane.control.client import ControlClient
from hyperlane.control.service import ControlServer
from tests.worker.fakes import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path)
    yield workshop
    workshop.close()


@pytest.fixture
def serve(workshop: Workshop) -> Iterator[Callable[..., ControlClient]]:
    """`serve(name)` starts a worker of that name and gives a client of it."""
    workers, servers, clients = [], [], []

    def serve(name: str = "w", port: int = 0) -> ControlClient:
        servers.append(ControlServer("127.0.0.1", port))
        workers.append(workshop.worker(name))
        servers[-1].start(workers[-1])
        clients.append(ControlClient(f"127.0.0.1:{servers[-1].port}", name))
        return clients[-1]

    yield serve
    for client in clients:
        client.close()
    for worker in workers:
        worker.unload()
    for server in servers:
        server.close(0.0)
