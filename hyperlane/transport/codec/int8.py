"""codec=int8: 8 bits a value and one FP16 scale for each group of 64.

Payload: scales FP16 [R, G], then codes int8 [R, D]. groups.py has the arithmetic.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec.groups import (
    check_bytes,
    dequantize,
    group_count,
    join_payload,
    quantize,
    split_payload,
)
from hyperlane.transport.codec.protocol import Buffer
from hyperlane.transport.native import extension

_LEVELS = 127


class Int8:
    """Native where the extension is there; `native=False` keeps to the reference."""

    name = "int8"
    id = 1

    def __init__(self, *, native: bool = True) -> None:
        self._native = extension() if native else None

    def max_bytes(self, rows: int, width: int) -> int:
        return rows * (2 * group_count(width) + width)

    def encode(self, hidden_RD: NDArray[Any], positions_R: NDArray[np.uint32]) -> NDArray[np.uint8]:
        if self._native is None:
            return encode(hidden_RD)
        payload = np.empty(self.max_bytes(*hidden_RD.shape), np.uint8)
        self._native.int8_encode(np.ascontiguousarray(hidden_RD), payload)
        return payload

    def decode(self, payload: Buffer, positions_R: NDArray[np.uint32], out_RD: NDArray[Any]) -> None:
        check_bytes(payload, self.max_bytes(*out_RD.shape), out_RD)
        if self._native is None or not out_RD.flags.c_contiguous:
            decode(payload, out_RD)
        else:
            self._native.int8_decode(payload, out_RD)


def encode(hidden_RD: NDArray[Any]) -> NDArray[np.uint8]:
    """The reference."""
    scales_RG, codes = quantize(hidden_RD, _LEVELS)
    return join_payload(scales_RG, codes[:, : hidden_RD.shape[1]])


def decode(payload: Buffer, out_RD: NDArray[Any]) -> None:
    """The reference."""
    rows, width = out_RD.shape
    scales_RG, codes_RD = split_payload(payload, rows, width, row_bytes=width)
    dequantize(scales_RG, codes_RD.view(np.int8), out_RD)
