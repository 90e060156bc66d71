"""Raw TCP from C (tcp_c.c, compiled for the bench): what the kernel alone takes."""

import ctypes
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.links.end import Report
from tests.bench.links.tcp import MOST_BYTES, accepted, connected

SOURCE = Path(__file__).with_suffix(".c")


@dataclass(frozen=True, slots=True)
class _CLoops:
    library: Any
    connection: socket.socket
    buffer: Any

    def ping(self, size: int, count: int) -> list[float]:
        times_s = (ctypes.c_double * count)()
        self._call("ping", size, count, times_s)
        return list(times_s)

    def pong(self, size: int, count: int) -> None:
        self._call("pong", size, count)

    def push(self, size: int, count: int) -> float:
        time_s = ctypes.c_double()
        self._call("push", size, count, ctypes.byref(time_s))
        return size * count / time_s.value

    def drain(self, size: int, count: int) -> None:
        self._call("drain", size, count)

    def _call(self, loop: str, size: int, count: int, *rest: Any) -> None:
        plain = (ctypes.c_int(self.connection.fileno()), self.buffer, ctypes.c_long(size), ctypes.c_long(count))
        if getattr(self.library, loop)(*plain, *rest):
            raise ConnectionError(f"{loop} of {count} messages of {size} bytes: the connection ended")


class TcpC:
    name = "TCP (C)"

    def listen(self, report: Report) -> _CLoops:
        return _loops(accepted(report))

    def connect(self, address: str) -> _CLoops:
        return _loops(connected(address))


def has_compiler() -> bool:
    return shutil.which("cc") is not None


def _loops(connection: socket.socket) -> _CLoops:
    return _CLoops(_library(), connection, ctypes.create_string_buffer(MOST_BYTES))


def _library() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loops.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", path, SOURCE], check=True)
        return ctypes.CDLL(str(path))
