"""Whether the kernels give the reference's bytes and values."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec import Codec
from hyperlane.transport.codec.device import cuda, device_codec
from tests.bench.kernels.rows import codec_for, plain_rows, spoil
from tests.bench.row import Row

SHAPES = ((1, 4096), (2, 64), (67, 576), (33, 200), (9, 1111), (24, 37), (40, 5120), (515, 4096), (3001, 128))
SPREADS = {576: 2.0, 200: 1.0, 5120: 1.5}  # of channels' strengths: many and few bits, and none


class Kernels:
    """One codec's kernels on buffers of their own, with guard bytes behind what they may write."""

    def __init__(self, codec: Codec, rows: int, width: int, dtype: Any, few_rows: int | None) -> None:
        module = cuda()
        assert module is not None
        self.codec, self.shape, self.dtype = codec, (rows, width), np.dtype(dtype)
        self._kernels = device_codec(codec, width, rows, few_rows=few_rows)
        row_bytes = rows * width * self.dtype.itemsize
        self._rows, self._decoded = module.DeviceBuffer(row_bytes), module.DeviceBuffer(row_bytes)
        self._payload = module.DeviceBuffer(self._kernels.max_bytes(rows) + 8)
        self._positions, self._size = module.DeviceBuffer(4 * rows), module.DeviceBuffer(8)
        self._stream = module.Stream()

    def encode(self, hidden_RD: NDArray[Any], positions_R: NDArray[np.uint32]) -> NDArray[np.uint8]:
        rows = self.shape[0]
        self._fill(self._payload)
        self._put(self._rows, hidden_RD)
        self._put(self._positions, positions_R)
        at = (self._rows.address, self.dtype == np.float16, rows, self._positions.address)
        self._kernels.encode(*at, self._payload.address, self._size.address, self._stream.address)
        size = np.array([self._kernels.usual_bytes(rows)], np.uint64)
        if not self._kernels.fixed:
            self._get(self._size, size)
        payload = np.empty(self._payload.bytes, np.uint8)
        self._get(self._payload, payload)
        end = int(size[0])
        assert (payload[end:] == 0xA5).all(), "written beyond the payload"
        return payload[:end]

    def decode(self, payload: NDArray[np.uint8]) -> NDArray[Any]:
        rows = self.shape[0]
        self._fill(self._decoded)
        self._put(self._payload, payload)
        at = (self._payload.address, rows, self._decoded.address, self.dtype == np.float16)
        self._kernels.decode(*at, self._stream.address)
        decoded = np.empty(self.shape, self.dtype)
        self._get(self._decoded, decoded)
        return decoded

    def _fill(self, buffer: Any) -> None:
        self._put(buffer, np.full(buffer.bytes, 0xA5, np.uint8))

    def _put(self, buffer: Any, array: NDArray[Any]) -> None:
        held = np.ascontiguousarray(array)
        self._stream.copy(buffer.address, held.ctypes.data, held.nbytes)
        self._stream.synchronize()

    def _get(self, buffer: Any, array: NDArray[Any]) -> None:
        self._stream.copy(array.ctypes.data, buffer.address, array.nbytes)
        self._stream.synchronize()


def check(name: str, seed: int) -> list[Row]:
    """A line a shape and type: bytes that differ, and values."""
    return [
        row for i, shape in enumerate(SHAPES) for dtype in ("f2", "f4") for row in _check(name, shape, dtype, seed + i)
    ]


def _check(name: str, shape: tuple[int, int], dtype: str, seed: int) -> list[Row]:
    rows, width = shape
    hidden = plain_rows(seed, max(rows, 64), width, SPREADS.get(width, 0.5))
    codec = codec_for(name, hidden, native=rows > 100)
    hidden = hidden[:rows]
    with np.errstate(over="ignore", invalid="ignore"):
        spoil(hidden, seed)
        hidden = hidden.astype(dtype)
    positions = np.random.default_rng(seed).integers(0, 9, rows).astype(np.uint32)
    wrong_bytes, wrong_values = 0, 0
    # Both kinds of kernels; the second run of each finds what the first one left.
    for kernels in [Kernels(codec, rows, width, dtype, few_rows) for few_rows in (0, None)] * 2:
        expected = np.asarray(codec.encode(hidden, positions))
        found = kernels.encode(hidden, positions)
        same = len(found) == len(expected)
        wrong_bytes += int((found != expected).sum()) if same else len(expected)
        wanted = np.empty_like(hidden)
        codec.decode(expected, positions, wanted)
        decoded = kernels.decode(expected)
        word = np.uint16 if dtype == "f2" else np.uint32
        equal = (decoded.view(word) == wanted.view(word)) | (np.isnan(decoded) & np.isnan(wanted))
        wrong_values += int((~equal).sum())
    what = f"{name} {rows}x{width} {np.dtype(dtype).name} seed {seed}"
    return [
        Row(what=f"{what}: bytes that differ", value=wrong_bytes, unit="B", reference=len(expected)),
        Row(what=f"{what}: values that differ", value=wrong_values, unit="", reference=hidden.size),
    ]
