"""codec=int4_plain: 4 bits a value and one FP16 scale for each group of 64. The baseline; it costs quality.

Payload: scales FP16 [R, G], then per row the groups' nibbles. A group of n values takes h = ceil(n / 2)
bytes: byte i has value i in its low four bits and value h + i in its high four, each as code + 8 (beyond n: 8).
Halves, not neighbours, so that a vector unit needs no shuffle. groups.py has the arithmetic; absmax / 7 keeps
it symmetric.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec.groups import (
    GROUP,
    check_bytes,
    dequantize,
    group_count,
    join_payload,
    quantize,
    split_payload,
)
from hyperlane.transport.codec.protocol import Buffer
from hyperlane.transport.native import extension

_LEVELS = 7
_BIAS = 8


class Int4Plain:
    """Native where the extension is there; `native=False` keeps to the reference."""

    name = "int4_plain"
    id = 2

    def __init__(self, *, native: bool = True) -> None:
        self._native = extension() if native else None

    def max_bytes(self, rows: int, width: int) -> int:
        return rows * (2 * group_count(width) + _row_bytes(width))

    def encode(self, hidden_RD: NDArray[Any], positions_R: NDArray[np.uint32]) -> NDArray[np.uint8]:
        if self._native is None:
            return encode(hidden_RD)
        payload = np.empty(self.max_bytes(*hidden_RD.shape), np.uint8)
        self._native.int4_plain_encode(np.ascontiguousarray(hidden_RD), payload)
        return payload

    def decode(self, payload: Buffer, positions_R: NDArray[np.uint32], out_RD: NDArray[Any]) -> None:
        check_bytes(payload, self.max_bytes(*out_RD.shape), out_RD)
        if self._native is None or not out_RD.flags.c_contiguous:
            decode(payload, out_RD)
        else:
            self._native.int4_plain_decode(payload, out_RD)


def encode(hidden_RD: NDArray[Any]) -> NDArray[np.uint8]:
    """The reference."""
    scales_RG, codes = quantize(hidden_RD, _LEVELS)
    nibbles_RD = (codes + _BIAS).astype(np.uint8)
    rows_bytes = [_pack(nibbles_RD[:, start:stop]) for start, stop in _groups(hidden_RD.shape[1])]
    return join_payload(scales_RG, np.concatenate(rows_bytes, axis=1))


def decode(payload: Buffer, out_RD: NDArray[Any]) -> None:
    """The reference."""
    rows, width = out_RD.shape
    scales_RG, packed = split_payload(payload, rows, width, row_bytes=_row_bytes(width))
    codes_RD = np.empty(out_RD.shape, np.int8)
    first = 0
    for start, stop in _groups(out_RD.shape[1]):
        half = _half(stop - start)
        codes_RD[:, start:stop] = _unpack(packed[:, first : first + half], stop - start)
        first += half
    dequantize(scales_RG, codes_RD, out_RD)


def _groups(width: int) -> list[tuple[int, int]]:
    return [(start, min(start + GROUP, width)) for start in range(0, width, GROUP)]


def _half(n: int) -> int:
    return (n + 1) // 2


def _row_bytes(width: int) -> int:
    return _half(width)  # GROUP is even: only the last group can have an odd value


def _pack(nibbles_Rn: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, n = nibbles_Rn.shape
    half = _half(n)
    high = np.full((rows, half), _BIAS, np.uint8)
    high[:, : n - half] = nibbles_Rn[:, half:]
    return nibbles_Rn[:, :half] | (high << np.uint8(4))


def _unpack(packed: NDArray[np.uint8], n: int) -> NDArray[np.int8]:
    nibbles = np.concatenate([packed & 15, packed >> 4], axis=1)[:, :n]
    return nibbles.astype(np.int8) - np.int8(_BIAS)
