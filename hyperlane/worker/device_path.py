"""Hidden rows between frames and a GPU: decoded from pinned memory where the shard reads them, encoded where it wrote.

Decoding, the shard and encoding have a stream each, ordered by events: a lane's frame is encoded, copied and decoded
while the GPU computes another lane.
"""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from hyperlane.errors import TransportError
from hyperlane.transport.codec import Codec, Decoders
from hyperlane.transport.codec.device import device_codec
from hyperlane.transport.codec.tabled import TabledCodec
from hyperlane.transport.frame import Frame, row_positions
from hyperlane.worker.gpu import DeviceRows, Gpu, RowRing

LEAST_ROWS = 64  # a path is made for so many rows, and made again for more


class DevicePath:
    """One epoch's two ends on a GPU. Decoding and encoding may be called by two threads, each by one at a time.

    depth: how many payloads stand in pinned memory at each end; more than frames wait in the link's queue.
    """

    def __init__(self, gpu: Gpu, incoming: Decoders, dtype: DTypeLike, depth: int) -> None:
        self._gpu, self._incoming, self._dtype, self._depth = gpu, incoming, np.dtype(dtype), depth
        self._half = self._dtype == np.float16
        self._paths: dict[tuple[bool, int], Any] = {}
        self._width = 0  # of the shard's rows, once there was one
        self._ring: RowRing | None = None

    def decode(self, frame: Frame) -> DeviceRows | None:
        """The rows of a hidden frame, queued; None where the host must: no kernels, or no payload of such rows."""
        codec = self._incoming.codec(frame.codec)
        path = None if codec is None else self._path(codec, frame.rows, frame.width, encodes=False)
        if path is None:
            return None
        if self._ring is None:
            self._ring = RowRing(self._gpu, self._depth, frame.width * self._dtype.itemsize)
        rows = self._ring.take(frame.rows, frame.width, self._dtype)
        taken = path.take(frame.payload, frame.rows, rows.address, self._half, rows.read, rows.there)
        return rows if taken else None

    def encode(self, rows: DeviceRows, codec: Codec, frame: Frame) -> memoryview:
        """The payload of rows that stand as the frame's do. It stays as it is until `depth` others are encoded."""
        path = self._path(codec, len(rows), rows.shape[1], encodes=True)
        if path is None:
            return codec.encode(rows.numpy(), row_positions(frame.runs)).data
        size = path.encode(rows.address, self._half, len(rows), row_positions(frame.runs), rows.there)
        return memoryview(path.payload)[:size]

    def _path(self, codec: Codec, rows: int, width: int, *, encodes: bool) -> Any | None:
        """Kernels, pinned memory and a stream for one codec and direction; None where there are no kernels."""
        self._gpu.use()
        self._width = self._width or width
        key = (encodes, codec.id)
        if width != self._width or (isinstance(codec, TabledCodec) and codec.tables.width != width):
            return None
        path = self._paths.get(key)
        if key not in self._paths or (path is not None and path.max_rows < rows):
            most = max(LEAST_ROWS, 1 << (rows - 1).bit_length())
            path = self._paths[key] = self._new_path(codec, width, most)
        return path

    def _new_path(self, codec: Codec, width: int, rows: int) -> Any | None:
        try:
            kernels = device_codec(codec, width, rows, item_bytes=self._dtype.itemsize)
        except (TransportError, ValueError):  # ValueError: rows too wide for the GPU's shared memory
            return None
        return self._gpu.host_path(kernels, rows, self._depth)
