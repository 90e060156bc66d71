"""Bytes that one more decoded token puts on the wire: the difference between a long and a short answer."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.engines.llama_rpc import batched_bench, rpc_server
from tests.bench.engines.ours import OVERRIDES

SHORT, LONG = 32, 96


def ours(overrides: Sequence[str]) -> float:
    """From generation.json's links: every frame between coordinator and workers, both ways."""
    return (_our_bytes(LONG, overrides) - _our_bytes(SHORT, overrides)) / (LONG - SHORT)


def llama_rpc() -> float:
    """Through a proxy in front of each server, which counts both ways."""
    with ExitStack() as exits:
        proxies = [exits.enter_context(counting_proxy(exits.enter_context(rpc_server())[1])) for _ in range(2)]
        counts = []
        for new_tokens in (SHORT, LONG):
            before = sum(proxy.bytes for proxy in proxies)
            batched_bench([proxy.address for proxy in proxies], 16, new_tokens, 1)
            counts.append(sum(proxy.bytes for proxy in proxies) - before)
        return (counts[1] - counts[0]) / (LONG - SHORT)


def _our_bytes(new_tokens: int, overrides: Sequence[str]) -> int:
    with TemporaryDirectory(prefix="hyperlane-bench-") as folder:
        words = [*OVERRIDES, *overrides, f"generate.max_new_tokens={new_tokens}"]
        command = [sys.executable, "-m", "hyperlane", "prompt=Once upon a time there was a", *words]
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True, timeout=300)
        (found,) = Path(folder).glob("outputs/*/*/generate/generation.json")
        generation = json.loads(found.read_text())
        return sum(link["wire_bytes"] for link in generation["links"])


@dataclass(slots=True)
class Proxy:
    """Forwards connections to `target` and counts what crosses."""

    target: tuple[str, int]
    listener: socket.socket
    _counts: list[int] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> str:
        host, port = self.listener.getsockname()
        return f"{host}:{port}"

    @property
    def bytes(self) -> int:
        with self._lock:
            return sum(self._counts)

    def serve(self) -> None:
        """Until the listener is closed."""
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                self._threads.append(threading.Thread(target=self._connect, args=(near,), daemon=True))
                self._threads[-1].start()

    def join(self, timeout_s: float) -> None:
        """Until the connections so far have ended."""
        for thread in self._threads:
            thread.join(timeout_s)

    def _connect(self, near: socket.socket) -> None:
        """One connection, until both of its ends have closed theirs."""
        with near, socket.create_connection(self.target) as far:
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._forward, args=(far, near), daemon=True)
            back.start()
            self._forward(near, far)
            back.join()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 20):
                with self._lock:
                    self._counts.append(len(piece))
                sink.sendall(piece)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def counting_proxy(target: str) -> Iterator[Proxy]:
    host, _, port = target.rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy((host, int(port)), listener)
        threading.Thread(target=proxy.serve, daemon=True).start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
