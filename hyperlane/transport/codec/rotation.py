"""How a row is cut into blocks, and the rotation of a block: fixed signs, then a Hadamard transform.

The transform spreads an outlier over its whole block, so that four bits suffice (QuaRot, arXiv 2404.00456).
Its order of additions is part of the format: FP32, each rounded, values 32 apart first, neighbours last.
"""

import numpy as np
from numpy.typing import NDArray

BLOCK = 64
_SEED = 7
_WORD = 2**64 - 1

Span = tuple[int, int, int]  # a block that has bits: half-open (start, stop), and its bits a value


def blocks(width: int) -> tuple[tuple[int, int], ...]:
    """Half-open (start, stop) of each block: 64 wide, the rest in falling powers of two (36 = 32 + 4)."""
    spans = [(start, start + BLOCK) for start in range(0, width - BLOCK + 1, BLOCK)]
    start, size = len(spans) * BLOCK, BLOCK // 2
    while start < width:
        if width - start >= size:
            spans.append((start, start + size))
            start += size
        size //= 2
    return tuple(spans)


def signs(width: int) -> NDArray[np.float32]:
    """+1 or -1 for each channel: bit j % 64 of output j // 64 of SplitMix64, seed 7; a set bit is -1."""
    words = np.array([_splitmix64(index) for index in range(-(-width // 64))], "<u8")
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")[:width]
    return (np.float32(1) - np.float32(2) * bits).astype(np.float32)


def hadamard(values_Rn: NDArray[np.float32]) -> NDArray[np.float32]:
    """Hadamard transform (natural order, not normalised) of each row; n is a power of two."""
    rows, n = values_Rn.shape
    half = n // 2
    while half:
        pairs = values_Rn.reshape(rows, n // (2 * half), 2, half)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        values_Rn = np.stack((first + second, first - second), axis=2).reshape(rows, n)
        half //= 2
    return values_Rn


def halving_sum(values_Rn: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum of each row in the transform's order: the upper half onto the lower, until one is left."""
    while (n := values_Rn.shape[1]) > 1:
        values_Rn = values_Rn[:, : n // 2] + values_Rn[:, n // 2 :]
    return values_Rn[:, 0]


def row_sum(values_RD: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum of each row of any width: 64 running sums (channel j into sum j % 64), then a halving sum."""
    rows, width = values_RD.shape
    sums = np.zeros((rows, BLOCK), np.float32)
    for start in range(0, width, BLOCK):
        part = values_RD[:, start : start + BLOCK]
        sums[:, : part.shape[1]] += part
    return halving_sum(sums)


def _splitmix64(index: int) -> int:
    """Output number `index` of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    word = (_SEED + (index + 1) * 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)
