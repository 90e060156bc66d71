"""Codes of a few bits as bytes: bit planes from the most significant, value j at bit j % 8 of its byte."""

import numpy as np
from numpy.typing import NDArray


def packed_bytes(n: int, bits: int) -> int:
    """Of n codes of `bits` bits."""
    return -(-n * bits // 8)


def pack(codes_Rn: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes as bytes [R, packed_bytes(n, bits)]; codes of 8 bits are bytes as they are."""
    if bits == 8:
        return codes_Rn
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint8)[:, None]
    planes = (codes_Rn[:, None, :] >> shifts) & 1
    return np.packbits(planes.reshape(len(codes_Rn), bits * codes_Rn.shape[1]), axis=1, bitorder="little")


def unpack(packed: NDArray[np.uint8], n: int, bits: int) -> NDArray[np.uint8]:
    """The codes [R, n] of `pack`."""
    if bits == 8:
        return packed
    flat = np.unpackbits(packed, axis=1, count=n * bits, bitorder="little")
    planes = flat.reshape(len(packed), bits, n)
    codes: NDArray[np.uint8] = (planes << np.arange(bits - 1, -1, -1, dtype=np.uint8)[:, None]).sum(
        axis=1, dtype=np.uint8
    )
    return codes
