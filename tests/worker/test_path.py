"""The path between two workers is timed over a connection of its own."""

import socket
from collections.abc import Callable

import pytest

from hyperlane.control.client import ControlClient
from hyperlane.errors import TransportError
from hyperlane.worker import path
from hyperlane.worker.path import measure_path, open_sink
from tests.control.conftest import *  # noqa: F403  # the fixture `serve`

Serve = Callable[..., ControlClient]


def test_loopback_is_quick(serve: Serve) -> None:
    target = serve("target")
    speed = measure_path(target.address, ["127.0.0.1:1"])
    assert 0 < speed.latency_s < 0.1
    assert speed.bytes_per_s > 1e6


async def test_a_worker_measures_the_path_to_another(serve: Serve) -> None:
    target = serve("target")
    speed = await serve("source").measure_path(target.address, ["127.0.0.1:1"])
    assert speed.bytes_per_s > 1e6


def test_an_address_that_nobody_reaches_is_named(serve: Serve) -> None:
    target = serve("target")
    with pytest.raises(TransportError, match=r"no path to the worker at .*127\.0\.0\.2"):
        measure_path(target.address, ["127.0.0.2:1"])


def test_a_sink_listens_on_the_workers_address_alone() -> None:
    port = open_sink(("127.0.0.1",))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_a_sink_counts_what_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    port = open_sink(("127.0.0.1",))
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"b" + path._LENGTH.pack(1000) + bytes(999))
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(5)
        connection.sendall(b"\0")
        assert connection.recv(1) == b"b"
