"""What `int4` knows of a boundary: each channel's step and its place, and how likely each symbol is.

Channels are coded 32 a vector, in `order_D`: sorted within blocks of 256, so that those of a vector spread alike
by their steps. A multiple k of a channel's step is cut in two: its low `shift_D` bits go as they are, the rest,
k >> shift, is symbol 16 + (k >> shift) of the vector's table. Frequencies sum to 256, and those that are not 0
stand side by side: a rest beyond them takes the nearest, and a patch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec.rans import LANES, TOTAL

BLOCK = 256  # channels are sorted within blocks of so many
SYMBOLS = 32
MIDDLE = 16  # the symbol of 0
MOST_SHIFT = 7
SMALLEST_STEP = np.float16(2**-14)


@dataclass(frozen=True)
class ScalarTables:
    """Of one boundary, D channels in V = ceil(D / 32) vectors; `sound` says whether the parts fit each other."""

    loudness: float  # the calibrated mean over channels of |value / step|; FP32
    step_D: NDArray[np.float16]  # by the row's RMS
    order_D: NDArray[np.uint32]
    shift_D: NDArray[np.uint8]
    table_V: NDArray[np.uint8]
    frequency_TK: NDArray[np.uint8]  # K = 32 symbols of each table

    @property
    def width(self) -> int:
        return len(self.step_D)

    def sound(self) -> bool:
        """Whether every part has its shape and its bounds."""
        width, tables = self.width, self.frequency_TK
        return (
            len(self.order_D) == len(self.shift_D) == width
            and len(self.table_V) == vectors(width)
            and tables.ndim == 2
            and tables.shape[1] == SYMBOLS
            and 0 < self.loudness < float(np.float32(1e30))
            and bool(np.isfinite(self.step_D).all() and (self.step_D >= SMALLEST_STEP).all())
            and bool((self.shift_D <= MOST_SHIFT).all() and (self.table_V < len(tables)).all())
            and bool((np.sort(self.order_D) == np.arange(width)).all())
            and bool((self.order_D // BLOCK == np.arange(width) // BLOCK).all())
            and bool((tables.sum(axis=1, dtype=np.uint32) == TOTAL).all())
            and all(_adjacent(table) for table in tables)
        )


def vectors(width: int) -> int:
    """How many vectors `width` channels take."""
    return -(-width // LANES)


def _adjacent(frequency_K: NDArray[np.uint8]) -> bool:
    present = np.flatnonzero(frequency_K)
    return bool(present[-1] - present[0] + 1 == len(present))
