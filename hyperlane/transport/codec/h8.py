"""H8: eight bits a rotated value, signed steps of a 127th of one E4M3 scale a block."""

import numpy as np
from numpy.typing import NDArray

from hyperlane.transport.codec import e4m3, scale
from hyperlane.transport.codec.tables import Tables

ID = 5
SORTED = False


def bits(tables: Tables) -> NDArray[np.uint8]:
    """Bits a value of each block."""
    return np.full(len(tables.bits_B), 8, np.uint8)


def quantize(
    values_Rn: NDArray[np.float32], bits: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """One block of R rows -> scale bytes [R], codes [R, n] (int8), whether a scale could hold the row [R].

    The scale is the least E4M3 value that clips nothing: levels are plenty, a clipped value is dear.
    """
    sixteenfold_R = np.abs(values_Rn).max(axis=1) * np.float32(16)
    scales_R = e4m3.at_least(np.minimum(sixteenfold_R, scale.LARGEST))
    steps_Rn = np.rint(values_Rn * (scale.inverse(scale.step(scales_R)) * np.float32(127))[:, None])
    codes_Rn = np.clip(steps_Rn, -127, 127).astype(np.int8).view(np.uint8)
    return scales_R, codes_Rn, sixteenfold_R <= scale.LARGEST


def dequantize(scales_R: NDArray[np.uint8], codes_Rn: NDArray[np.uint8], bits: int) -> NDArray[np.float32]:
    """The values [R, n] that the codes stand for."""
    step_R = scale.step(scales_R) * np.float32(1 / 127)
    return codes_Rn.view(np.int8).astype(np.float32) * step_R[:, None]
