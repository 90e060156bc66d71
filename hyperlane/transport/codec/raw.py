"""codec=raw: the rows as they are, FP32 or FP16; the payload's length tells which."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import TransportError
from hyperlane.transport.codec.protocol import Buffer


class Raw:
    name = "raw"
    id = 0

    def max_bytes(self, rows: int, width: int) -> int:
        return 4 * rows * width

    def encode(self, hidden_RD: NDArray[Any], positions_R: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """A view of `hidden_RD` where that is contiguous: send it before it changes."""
        return np.ascontiguousarray(hidden_RD).reshape(-1).view(np.uint8)

    def decode(self, payload: Buffer, positions_R: NDArray[np.uint32], out_RD: NDArray[Any]) -> None:
        payload_bytes = np.frombuffer(payload, np.uint8).size
        dtypes = {4 * out_RD.size: np.float32, 2 * out_RD.size: np.float16}
        if payload_bytes not in dtypes:
            raise TransportError(f"{payload_bytes} bytes of raw rows, neither FP32 nor FP16 of shape {out_RD.shape}")
        with np.errstate(over="ignore", invalid="ignore"):
            out_RD[...] = np.frombuffer(payload, dtypes[payload_bytes]).reshape(out_RD.shape)
