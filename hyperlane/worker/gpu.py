"""One GPU as a worker sees it: memory, the stream on which the shard runs, and rows that lie there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import WorkerError
from hyperlane.transport.codec.device import cuda


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

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        return self.shape[1] * self.dtype.itemsize

    def numpy(self) -> NDArray[Any]:
        """A copy in host memory."""
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

    def take(self, rows: int, width: int, dtype: "np.dtype[Any]") -> DeviceRows:
        """The next place; whoever writes there must have waited for its `read`."""
        self._turn = (self._turn + 1) % len(self._places)
        place = self._places[self._turn]
        if place.rows < rows:
            place.read.synchronize()
            place.rows = 1 << (rows - 1).bit_length()
            place.memory = self._gpu.memory(place.rows * self.row_bytes)
        return DeviceRows(
            gpu=self._gpu,
            address=int(place.memory.address),
            shape=(rows, width),
            dtype=dtype,
            there=place.there,
            read=place.read,
            memory=place.memory,
        )


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
