"""CRC32C (Castagnoli, RFC 3720 appendix B.4) as the frames carry it: one table, and a split for long inputs.

`_by_byte` is the specification. A long input is cut into equal parts that NumPy walks side by side, and
the parts are joined by "append n zero bytes", which on a CRC is a linear map of its 32 bits.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # reversed bit order
_PARTS = 256


def crc32c(data: bytes | memoryview, crc: int = 0) -> int:
    """The CRC32C of `data`, or of what gave `crc` followed by `data`."""
    part_bytes = len(data) // _PARTS
    if part_bytes < 8:
        return _by_byte(data, crc)
    split = part_bytes * _PARTS
    parts = np.frombuffer(data, np.uint8, split).reshape(_PARTS, part_bytes)
    for part_crc in _by_column(parts):
        crc = _append_zeros(crc, part_bytes) ^ int(part_crc)
    return _by_byte(data[split:], crc)


def _by_byte(data: bytes | memoryview, crc: int) -> int:
    table = _table().tolist()
    crc ^= 0xFFFFFFFF
    for byte in bytes(data):
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _by_column(parts: NDArray[np.uint8]) -> NDArray[np.uint32]:
    table = _table()
    crcs = np.full(len(parts), 0xFFFFFFFF, np.uint32)
    for column in np.ascontiguousarray(parts.T):
        crcs = (crcs >> np.uint32(8)) ^ table[(crcs ^ column) & np.uint32(0xFF)]
    return crcs ^ np.uint32(0xFFFFFFFF)


@cache
def _table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ (table & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    return table


def _append_zeros(crc: int, count: int) -> int:
    """The CRC of A + B is append_zeros(crc(A), len(B)) ^ crc(B)."""
    power = 0
    while count:
        if count & 1:
            crc = _apply(_zeros_matrix(power), crc)
        count >>= 1
        power += 1
    return crc


@cache
def _zeros_matrix(power: int) -> tuple[int, ...]:
    """What 2**power zero bytes do to each of the 32 bits of a CRC register."""
    if power == 0:
        table = _table().tolist()
        return tuple(((1 << bit) >> 8) ^ table[(1 << bit) & 0xFF] for bit in range(32))
    half = _zeros_matrix(power - 1)
    return tuple(_apply(half, column) for column in half)


def _apply(matrix: tuple[int, ...], crc: int) -> int:
    result = 0
    for bit, column in enumerate(matrix):
        if crc >> bit & 1:
            result ^= column
    return result
