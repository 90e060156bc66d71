"""A GPU's stand-in: its memory is the host's, its streams do at once what they are told."""

import ctypes
import time
from typing import Any

import numpy as np


class Memory:
    def __init__(self, count: int) -> None:
        self.bytes = np.full(count, 0xFF, np.uint8)  # NaN, until somebody writes
        self.address = self.bytes.ctypes.data


class Event:
    def record(self, stream: "Stream") -> None: ...

    def synchronize(self) -> None: ...


class Stream:
    address = 0

    def copy(self, target: int, source: int, count: int) -> None:
        ctypes.memmove(target, source, count)

    def copy_rows(self, target: int, source: int, pitch: int, count: int, rows: int) -> None:
        for row in range(rows):
            ctypes.memmove(target + row * pitch, source + row * pitch, count)

    def zero(self, target: int, count: int) -> None:
        ctypes.memset(target, 0, count)

    def stamp(self, place: int) -> None:
        ctypes.c_uint64.from_address(place).value = time.monotonic_ns() + 5000

    def wait(self, event: Event) -> None: ...

    def synchronize(self) -> None: ...


class FakeGpu:
    """As worker.gpu.Gpu, for what a session asks of it."""

    def __init__(self, index: int) -> None:
        self.index, self.stream = index, Stream()

    def use(self) -> None: ...

    def pinned(self, count: int) -> Any:
        return np.zeros(max(count, 64), np.uint8).view(Pinned)

    def memory(self, count: int) -> Memory:
        return Memory(max(count, 64))

    def event(self) -> Event:
        return Event()


class Pinned(np.ndarray[Any, Any]):
    """Speaks the buffer protocol, and knows its address."""

    @property
    def address(self) -> int:
        return self.ctypes.data


class OnHost:
    """An ONNX Runtime session whose bindings take the host's memory for the GPU's."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: "Binding", options: Any = None) -> None:
        self._session.run_with_iobinding(binding.inner)

    def io_binding(self) -> "Binding":
        return Binding(self._session.io_binding())


class Binding:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def bind_input(self, name: str, place: str, *rest: Any) -> None:
        self.inner.bind_input(name, "cpu", *rest)

    def bind_output(self, name: str, place: str, *rest: Any) -> None:
        self.inner.bind_output(name, "cpu", *rest)
