"""H4: four bits a rotated value, an index into NF4 (arXiv 2305.14314) under one E4M3 scale a block."""

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec import scale
from hyperlane.transport.codec.codebooks import NF4
from hyperlane.transport.codec.tables import Tables

ID = 4
SORTED = False

CLIPS = (0.75, 0.85, 0.95, 1.0)
TRIALS = tuple(16 * clip for clip in CLIPS)


def bits(tables: Tables) -> NDArray[np.uint8]:
    """Bits a value of each block."""
    return np.full(len(tables.bits_B), 4, np.uint8)


def quantize(
    values_Rn: NDArray[np.float32], bits: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """One block of R rows -> scale bytes [R], codes [R, n], and whether a scale could hold the row [R].

    The scale is e4m3(16 * clip * absmax) / 16 with the clip of least squared error.
    """
    absmax_R = np.abs(values_Rn).max(axis=1)
    fits_R = absmax_R * np.float32(16) <= scale.LARGEST
    return (*scale.best(values_Rn, absmax_R, TRIALS, NF4), fits_R)


def dequantize(scales_R: NDArray[np.uint8], codes_Rn: NDArray[np.uint8], bits: int) -> NDArray[np.float32]:
    """The values [R, n] that the codes stand for."""
    return NF4.levels[codes_Rn] * scale.step(scales_R)[:, None]
