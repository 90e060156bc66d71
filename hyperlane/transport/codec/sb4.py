"""SB4, sorted blocks: channels sorted by deviation, and as many bits a block as its energy earns.

Codes index the Lloyd-Max quantizer of a unit Gaussian; rotated blocks are close to one. This is `int4`.
"""

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec import scale
from hyperlane.transport.codec.codebooks import LLOYD_MAX
from hyperlane.transport.codec.rotation import halving_sum
from hyperlane.transport.codec.tables import Tables

ID = 3
SORTED = True
GAINS = (0.92, 1.0, 1.1)
TRIALS = tuple(16 * gain for gain in GAINS)


def bits(tables: Tables) -> NDArray[np.uint8]:
    """Bits a value of each block of sorted channels."""
    return tables.bits_B


def quantize(
    values_Rn: NDArray[np.float32], bits: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """One block of R rows -> scale bytes [R], codes [R, n], and whether a scale could hold the row [R].

    A first pass under the block's RMS gives the least-squares gain <v, q> / <q, q>; the scale is
    e4m3(16 * m * gain) / 16 with the m of least squared error.
    """
    book = LLOYD_MAX[bits]
    rms_R = np.sqrt(halving_sum(values_Rn * values_Rn) * np.float32(1 / values_Rn.shape[1]))
    first_Rn = book.levels[book.codes(values_Rn * scale.inverse(rms_R)[:, None])]
    gain_R = halving_sum(values_Rn * first_Rn) / halving_sum(first_Rn * first_Rn)
    fits_R = gain_R * np.float32(TRIALS[-1]) <= scale.LARGEST
    return (*scale.best(values_Rn, gain_R, TRIALS, book), fits_R)


def dequantize(scales_R: NDArray[np.uint8], codes_Rn: NDArray[np.uint8], bits: int) -> NDArray[np.float32]:
    """The values [R, n] that the codes stand for."""
    return LLOYD_MAX[bits].levels[codes_Rn] * scale.step(scales_R)[:, None]
