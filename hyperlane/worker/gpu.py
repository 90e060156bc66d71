"""One GPU as a worker sees it: memory, the stream on which the shard runs, and rows that lie there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import WorkerError
from hyperlane.transport.codec.device import cuda

CLOCK_QUESTIONS = 8


class Gpu:
    """Device `index`. Addresses are plain numbers; what holds the memory must be kept beside them.

    A thread's current device is its own, so whoever allocates or launches calls `use` first.
    """

    def __init__(self, index: int) -> None:
        """WorkerError where there is no such GPU, or the extension was built without CUDA."""
        module = cuda()
        if module is None or index >= module.device_count():
            raise WorkerError(
                f"no GPU cuda:{index} that hyperlane can use; it needs an NVIDIA driver, and nvcc at installation"
            )
        self.index, self._cuda = index, module
        self.use()
        self.stream = module.Stream()  # on which the shard runs

    def use(self) -> None:
        """Make it this thread's current device."""
        self._cuda.set_device(self.index)

    def memory_bytes(self) -> tuple[int, int]:
        """Free, and all."""
        self.use()
        free, total = self._cuda.memory_info()
        return int(free), int(total)

    def pinned(self, count: int) -> Any:
        """Host memory that the GPU reaches; speaks the buffer protocol."""
        return self._cuda.PinnedBuffer(max(count, 64))

    def memory(self, count: int) -> Any:
        """Device memory."""
        return self._cuda.DeviceBuffer(max(count, 64))

    def event(self) -> Any:
        return self._cuda.Event()

    @property
    def name(self) -> str:
        """Which of the machine's GPUs it is, whatever number a process gives it."""
        self.use()
        return str(self._cuda.device_name())

    def new_stream(self) -> Any:
        """One more, beside the shard's."""
        self.use()
        return self._cuda.Stream()

    def counters(self, address: int, count: int) -> Any:
        """Counters in `count` bytes of mapped memory, which streams wait for and write."""
        return self._cuda.SharedCounters(address, count)

    def host_path(self, kernels: Any, rows: int, depth: int) -> Any:
        """Between device memory and `depth` payloads in pinned memory, for at most `rows` rows."""
        return self._cuda.HostPath(kernels, rows, depth)

    def export(self, memory: Any) -> bytes:
        """A handle of device memory for other processes of this machine."""
        return bytes(self._cuda.export_memory(memory.address))

    def imported(self, handle: bytes) -> Any:
        """Device memory of another process, mapped for as long as the result lives."""
        return self._cuda.ImportedMemory(handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRows:
    """Hidden rows [R, D] on a GPU: there once `there` has come; written over once `read` has been recorded and come."""

    gpu: Gpu
    address: int
    shape: tuple[int, int]
    dtype: "np.dtype[Any]"
    there: Any
    read: Any
    memory: Any  # keeps the address valid
    arrive: Callable[[], None] | None = None  # called once before they are used, if given: what brings them here

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        return self.shape[1] * self.dtype.itemsize

    def numpy(self) -> NDArray[Any]:
        """A copy in host memory."""
        if self.arrive is not None:
            self.arrive()
        self.gpu.use()
        rows = np.empty(self.shape, self.dtype)
        self.gpu.stream.wait(self.there)
        self.gpu.stream.copy(rows.ctypes.data, self.address, rows.nbytes)
        self.gpu.stream.synchronize()
        return rows


def on_host(rows: "NDArray[Any] | DeviceRows") -> NDArray[Any]:
    """Hidden rows as an array."""
    return rows.numpy() if isinstance(rows, DeviceRows) else rows


class RowRing:
    """Places for rows on a GPU, taken in turn; a place grows where more rows come than it holds."""

    def __init__(self, gpu: Gpu, depth: int, row_bytes: int) -> None:
        self._gpu, self.row_bytes, self._turn = gpu, row_bytes, 0
        self._places = [_Place(None, 0, gpu.event(), gpu.event()) for _ in range(depth)]

    def take(
        self, rows: int, width: int, dtype: "np.dtype[Any]", arrive: Callable[[DeviceRows], None] | None = None
    ) -> DeviceRows:
        """The next place; whoever writes there must have waited for its `read`."""
        self._turn = (self._turn + 1) % len(self._places)
        place = self._places[self._turn]
        if place.rows < rows:
            place.read.synchronize()
            place.rows = 1 << (rows - 1).bit_length()
            place.memory = self._gpu.memory(place.rows * self.row_bytes)
        made = DeviceRows(
            gpu=self._gpu,
            address=int(place.memory.address),
            shape=(rows, width),
            dtype=dtype,
            there=place.there,
            read=place.read,
            memory=place.memory,
        )
        return made if arrive is None else replace(made, arrive=lambda: arrive(made))


class Stamps:
    """When the GPU began and ended steps, by its own clock, told by the host's monotonic one."""

    def __init__(self, gpu: Gpu, count: int) -> None:
        """The latest `count` steps are kept."""
        self._gpu, self._count = gpu, count
        self._pinned = gpu.pinned(16 * (count + 1))
        self._times: NDArray[np.uint64] = np.frombuffer(memoryview(self._pinned), np.uint64)[: 2 * count + 2]
        self._ahead_ns = min(self._asked_ns() for _ in range(CLOCK_QUESTIONS))

    def mark(self, step: int, *, ends: bool) -> None:
        """Queue on the shard's stream: the beginning or the end of a step."""
        self._gpu.stream.stamp(self._pinned.address + 8 * (step % self._count * 2 + ends))

    def span_ns(self, step: int) -> tuple[int, int]:
        """Of a step that is over and not long ago."""
        begin, end = (int(self._times[step % self._count * 2 + i]) + self._ahead_ns for i in range(2))
        return begin, end

    def _asked_ns(self) -> int:
        """How far the host's clock is ahead; the least answer is the nearest to the truth."""
        self._gpu.stream.stamp(self._pinned.address + 16 * self._count)
        self._gpu.stream.synchronize()
        return monotonic_ns() - int(self._times[2 * self._count])


@dataclass(slots=True)
class _Place:
    memory: Any
    rows: int
    there: Any
    read: Any


def segments(pieces: Sequence[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """(source row, target row, rows) with those joined that follow one another on both sides."""
    source = target = count = 0
    for at, to, rows in pieces:
        if count and at == source + count and to == target + count:
            count += rows
            continue
        if count:
            yield source, target, count
        source, target, count = at, to, rows
    if count:
        yield source, target, count
