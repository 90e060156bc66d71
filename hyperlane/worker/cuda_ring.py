"""The shortcut between GPUs of one host: rows go from GPU memory to GPU memory, within one GPU or between two.

The receiving worker owns the ring, on its GPU, and lets the sending one map it. Two counters in memory that both
processes share say how many rows were placed and taken. Streams write them: a ticket goes out as soon as the copy is
queued, while the shard still computes. Between two GPUs the next shard's step is queued at once, behind a wait of its
stream. On one GPU, which takes turns between its processes, a waiting stream would use up turns: there the host waits,
with all prepared but the launch. At the ring's end the counters are set to what satisfies every wait.
"""

import logging
import mmap
import os
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hyperlane.errors import HyperlaneError, TransportError, one_line
from hyperlane.transport.door import Door, Visit, knock
from hyperlane.transport.frame import Frame
from hyperlane.transport.shortcut import read_ticket, ticket
from hyperlane.worker.gpu import DeviceRows, Gpu, RowRing

NAME = "cuda ipc"
PLACE_BYTES = 8 << 20  # larger steps go by TCP
PLACES = 8
RELEASED = 1 << 62  # a counter that no wait exceeds
TRIAL = bytes(range(256))
TRIAL_S = 3.0
PATIENCE_S = 60.0  # with a step that another GPU's process has queued
PLACED, TAKEN = 0, 1  # the counters

log = logging.getLogger(__name__)


class CudaShortcut:
    """The sending end, on this worker's GPU."""

    name = NAME

    def __init__(self, gpu: Gpu, identity: str, dtype: DTypeLike) -> None:
        """To the worker of that identity, for rows of a type; TransportError that says why there is no such way."""
        self._gpu, self._turn, self._freed = gpu, 0, False
        self._visit = knock(identity)
        try:
            self._visit.say({"rows": np.dtype(dtype).name, "gpu": gpu.name})
            answer, fds = self._visit.hear()
            gpu.use()
            self._counters = Counters(gpu, fds[0])
            self._ring = int(answer["ring"])
            self._memory = _attempted("its memory cannot be mapped", gpu.imported, bytes.fromhex(answer["memory"]))
            self._stream = gpu.new_stream()
            self._try()
        except (HyperlaneError, KeyError, ValueError, IndexError) as error:
            self._visit.close()
            raise TransportError(one_line(error)) from error

    def place(self, rows: DeviceRows, timeout_s: float) -> bytes | None:
        """Queued; never waits."""
        size = len(rows) * rows.row_bytes
        if size > PLACE_BYTES:
            return None
        if self._visit.ended:
            raise TransportError("the next worker let go of the shortcut")
        self._turn += 1
        self._gpu.use()
        stream = self._stream
        stream.wait(rows.there)
        if self._turn > PLACES:
            self._counters.wait(stream, TAKEN, self._turn - PLACES)
        stream.copy(self._memory.address + self._turn % PLACES * PLACE_BYTES, rows.address, size)
        self._counters.write(stream, PLACED, self._turn)
        rows.read.record(stream)
        return ticket(self._ring, self._turn)

    def close(self) -> None:
        if self._freed:
            return
        self._freed = True
        self._gpu.use()
        self._counters.release()
        self._stream.synchronize()
        del self._memory
        self._counters.close()
        self._visit.close()

    def _try(self) -> None:
        """Bytes to the first place and a counter there and back, as every step will."""
        page = self._gpu.pinned(len(TRIAL))
        memoryview(page)[: len(TRIAL)] = TRIAL
        self._stream.copy(self._memory.address, page.address, len(TRIAL))
        self._counters.write(self._stream, PLACED, 1)
        self._stream.synchronize()
        self._visit.say({"tried": len(TRIAL)})
        self._visit.hear()
        until_s = time.monotonic() + TRIAL_S
        while self._counters.words[TAKEN] != 1:
            if time.monotonic() > until_s:
                raise TransportError("the other GPU's counter did not come")
        self._counters.words[:] = 0
        self._visit.say({"begun": True})
        self._visit.hear()


class CudaLanding:
    """The receiving end, on this worker's GPU. `dtype` is of the rows that the present shard takes."""

    def __init__(self, gpu: Gpu, identity: str, depth: int) -> None:
        """`depth`: so many steps' rows may wait to be computed. TransportError where nobody could knock."""
        self.dtype: np.dtype[Any] = np.dtype(np.float16)
        self._gpu, self._depth = gpu, depth
        self._rings: dict[int, _Ring] = {}
        self._taken: RowRing | None = None
        self._stream = gpu.new_stream()
        self._door = Door(identity, self._serve)

    def rows(self, frame: Frame) -> DeviceRows:
        """Queued: a copy, which leaves the place free for the next rows."""
        number, turn = read_ticket(frame)
        ring = self._rings.get(number)
        row_bytes = frame.width * self.dtype.itemsize
        if ring is None or frame.rows * row_bytes > PLACE_BYTES:
            raise _closed(number, frame.step)
        self._gpu.use()
        if self._taken is None or self._taken.row_bytes != row_bytes:
            self._taken = RowRing(self._gpu, self._depth, row_bytes)
        if ring.shares_gpu:
            wait = partial(self._wait, ring, turn, frame.step)
            return self._taken.take(frame.rows, frame.width, self.dtype, wait)
        rows = self._taken.take(frame.rows, frame.width, self.dtype)
        self._queue(ring, turn, frame.step, rows)
        return rows

    def _wait(self, ring: "_Ring", turn: int, step: int, rows: DeviceRows) -> None:
        if not ring.counters.hold(PLACED, turn):
            raise TransportError(f"the rows of step {step} did not come")
        self._gpu.use()
        self._queue(ring, turn, step, rows)

    def _queue(self, ring: "_Ring", turn: int, step: int, rows: DeviceRows) -> None:
        """Copy rows out of the ring."""
        stream = self._stream
        with ring.lock:
            if ring.closed:
                raise _closed(ring.number, step)
            stream.wait(rows.read)
            ring.counters.wait(stream, PLACED, turn)
            stream.copy(rows.address, ring.memory.address + turn % PLACES * PLACE_BYTES, len(rows) * rows.row_bytes)
            ring.counters.write(stream, TAKEN, turn)
        rows.there.record(stream)

    def close(self) -> None:
        self._door.close()
        for ring in tuple(self._rings.values()):
            self._drop(ring)

    def _serve(self, visit: Visit) -> None:
        """One sender, from its offer to its end."""
        offer, _ = visit.hear()
        if offer.get("rows") != self.dtype.name:
            raise TransportError(f"rows of {offer.get('rows')} where this worker computes in {self.dtype.name}")
        self._gpu.use()
        ring: _Ring = _attempted("no room for a ring", _Ring, self._gpu, offer.get("gpu") == self._gpu.name)
        try:
            visit.say({"ring": ring.number, "memory": self._gpu.export(ring.memory).hex()}, [ring.fd])
            self._try(visit, ring)
            self._rings[ring.number] = ring
            visit.say({"begun": True})
            visit.wait_for_end()
        finally:
            self._drop(ring)

    def _try(self, visit: Visit, ring: "_Ring") -> None:
        visit.hear()
        page, stream = self._gpu.pinned(len(TRIAL)), self._gpu.new_stream()
        ring.counters.wait(stream, PLACED, 1)
        stream.copy(page.address, ring.memory.address, len(TRIAL))
        ring.counters.write(stream, TAKEN, 1)
        stream.synchronize()
        if bytes(memoryview(page)[: len(TRIAL)]) != TRIAL:
            raise TransportError("what one GPU wrote the other did not read")
        visit.say({"read": True})
        visit.hear()

    def _drop(self, ring: "_Ring") -> None:
        self._rings.pop(ring.number, None)
        self._gpu.use()
        ring.close(self._stream)


class Counters:
    """Two numbers that both processes and their streams see."""

    def __init__(self, gpu: Gpu, fd: int) -> None:
        """fd: of a page of memory; closed here."""
        try:
            self._page = mmap.mmap(fd, mmap.PAGESIZE)
        finally:
            os.close(fd)
        self.words: NDArray[np.uint64] = np.frombuffer(self._page, np.uint64)
        self._native = _attempted("streams cannot wait here", gpu.counters, self.words.ctypes.data, mmap.PAGESIZE)

    def wait(self, stream: Any, index: int, value: int) -> None:
        self._native.wait(stream, index, value)

    def write(self, stream: Any, index: int, value: int) -> None:
        self._native.write(stream, index, value)

    def hold(self, index: int, value: int) -> bool:
        """Wait on the host; False where it takes too long."""
        return bool(self._native.hold(index, value, PATIENCE_S))

    def release(self) -> None:
        """End all waits, the other process's too."""
        self.words[:] = RELEASED

    def close(self) -> None:
        del self._native  # before the page, which goes once nothing refers to it


@dataclass(slots=True)
class _Ring:
    """Places on a GPU, and the counters."""

    gpu: Gpu
    shares_gpu: bool  # with the sender
    number: int = field(default_factory=lambda: secrets.randbits(63))
    closed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    fd: int = field(init=False)
    memory: Any = field(init=False)
    counters: Counters = field(init=False)

    def __post_init__(self) -> None:
        self.fd = os.memfd_create("hyperlane", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.fd, mmap.PAGESIZE)
            self.counters = Counters(self.gpu, os.dup(self.fd))
            self.memory = self.gpu.memory(PLACES * PLACE_BYTES)
        except BaseException:
            os.close(self.fd)
            raise

    def close(self, stream: Any) -> None:
        """What is queued on the stream still reads the ring: it is freed behind that."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            self.counters.release()
            with suppress(RuntimeError):  # a GPU that failed has said so elsewhere
                stream.synchronize()
            del self.memory
            self.counters.close()
            os.close(self.fd)


def open_shortcut(gpu: Gpu, identity: str, dtype: DTypeLike) -> CudaShortcut | None:
    """The way to the worker of that identity, if there is one; else rows go by TCP, and the log says why."""
    try:
        return CudaShortcut(gpu, identity, dtype)
    except TransportError as error:
        log.info("no shortcut to %s: %s", identity.partition("#")[0], error)
        return None


def _closed(ring: int, step: int) -> TransportError:
    return TransportError(f"step {step} lies in ring {ring:x}, which is closed")


def _attempted(failure: str, make: Any, *args: Any) -> Any:
    """What `make` gives; TransportError where CUDA refuses."""
    try:
        return make(*args)
    except (RuntimeError, OSError) as error:
        raise TransportError(f"{failure}: {one_line(error)}") from error
